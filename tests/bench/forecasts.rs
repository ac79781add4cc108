//! Many series fitted, back-tested and forecast, on one core; no server.

use domain::finops::forecast::{Calendar, Driver, Model, Question, Step, forecast, try_model};

use crate::support::{Size, cpu_seconds};

/// Numbers that look like chance, the same every time (xorshift64*).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Three years of months of one resource: a trend, a season, noise, a shift in one of three, and a
/// count of servers that it depends on.
fn question(dice: &mut Dice) -> Question {
    let (months, horizon) = (36, 3);
    let (level, slope, price) = (100.0 * dice.roll(), 2.0 * dice.roll(), dice.roll());
    let shift = if dice.roll() < 0.33 { 12 + (12.0 * dice.roll()) as usize } else { 99 };
    let mut count = 20.0;
    let (mut history, mut counts) = (Vec::new(), Vec::new());
    for at in 0..months + horizon {
        count = (count + if dice.roll() < 0.2 { 10.0 * dice.roll() - 5.0 } else { 0.0 }).max(1.0);
        let wave = (at as f64 / 12.0 * std::f64::consts::TAU).sin();
        let step = if at >= shift { 80.0 } else { 0.0 };
        let noise = 1.0 + 0.05 * (dice.roll() - 0.5);
        counts.push(count);
        history.push((level + slope * at as f64 + 10.0 * wave + step + price * count) * noise);
    }
    history.truncate(months);
    let first = "2023-11-01".parse().expect("a day");
    Question {
        history,
        season: 12,
        horizon,
        drivers: vec![Driver { name: "servers".to_owned(), values: counts, coefficient: None }],
        calendar: Some(Calendar { first, step: Step::Month }),
        shifts: Vec::new(),
    }
}

pub(crate) fn run(size: Size) {
    let series = size.pick(10_000, 200);
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    let with: Vec<Question> = (0..series).map(|_| question(&mut dice)).collect();
    let without: Vec<Question> =
        with.iter().map(|one| Question { drivers: Vec::new(), ..one.clone() }).collect();
    for (what, questions) in [("no driver", &without), ("one driver", &with)] {
        let cpu = cpu_seconds();
        let mut origins = 0;
        for question in questions {
            let tried = try_model(question, Model::Regression).expect("a question");
            origins += tried.expect("it is long enough").0.origins;
        }
        println!(
            "- {series} series of 36 months, {what}: the regression fitted and back-tested from {} \
             origins each in **{:.1} CPU seconds** (goal ≤ 10).",
            origins / series,
            cpu_seconds() - cpu
        );
        let cpu = cpu_seconds();
        let found: Vec<_> =
            questions.iter().map(|one| forecast(one).expect("a forecast").model).collect();
        let regressions = found.iter().filter(|one| **one == Model::Regression).count();
        println!(
            "- the same with all models beside it, and the choice: {:.1} CPU seconds; the \
             regression was chosen for {} of 100.",
            cpu_seconds() - cpu,
            regressions * 100 / series
        );
    }
}
