//! Forecasts as tables: what was, what comes, within which limits, and how the models did.

use std::io::{self, Write};

use comfy_table::Cell;
use serde_json::Value;

use crate::{
    columns::plain,
    costs::{amount, close, items, right, text},
    format::{bare, heading},
    style::Style,
};

/// Most steps that a row of a series shows; `-o json` has all of them.
const STEPS: usize = 6;
/// Most past steps that a line is drawn of.
const DRAWN: usize = 12;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Series by series, then each currency's total step by step, and how the models did.
///
/// # Errors
/// What the output says.
pub fn table(out: &mut dyn Write, answer: &Value, style: Style) -> io::Result<()> {
    let series = items(answer, "items");
    if series.is_empty() {
        writeln!(out, "no cost is there to go by")?;
    } else if series.len() > 1 || !items(answer, "group_by").is_empty() {
        by_series(out, answer, style)?;
    }
    for (currency, total) in answer["totals"].as_object().into_iter().flatten() {
        writeln!(out, "\n{}", style.bold(&format!("total in {currency}")))?;
        steps(out, total, style)?;
        scores(out, total, style)?;
        looked_back(out, total)?;
    }
    for driver in items(answer, "drivers") {
        let name = format!("{}, revision {}", text(driver, "name"), plain(&driver["revision"]));
        match driver["left_out"].as_str() {
            None => writeln!(out, "by the driver {name}")?,
            Some(why) => writeln!(out, "without the driver {name}: {why}")?,
        }
    }
    if let Some(month) = answer["still_running"].as_str() {
        writeln!(out, "without {month}, which still runs (--running counts it)")?;
    }
    writeln!(
        out,
        "{} costs of {} bills at position {}, inputs {}",
        text(answer, "basis"),
        plain(&answer["bills"]),
        plain(&answer["position"]),
        text(answer, "inputs").get(..12).unwrap_or_default(),
    )
}

/// Which steps a row shows: all, or the first and the last.
fn shown(steps: usize) -> Vec<usize> {
    if steps <= STEPS { (0..steps).collect() } else { vec![0, 1, 2, steps - 1] }
}

fn by_series(out: &mut dyn Write, answer: &Value, style: Style) -> io::Result<()> {
    let groups: Vec<&str> = items(answer, "group_by").iter().filter_map(Value::as_str).collect();
    let series = items(answer, "items");
    let points = series.first().map_or(&[][..], |one| items(one, "points"));
    let places = shown(points.len());
    let mut table = bare(style);
    let coming = places.iter().map(|place| text(&points[*place], "period"));
    let headings = groups.iter().copied().chain(["past", "last"]).chain(coming);
    let furthest = points.last().map_or("", |last| text(last, "period"));
    let furthest = format!("95 % of {furthest}");
    let headings = headings.chain([furthest.as_str(), "currency", "by", "error", "naive"]);
    table.set_header(headings.map(heading));
    for one in series {
        let mut cells: Vec<Cell> = match one["group"].as_object() {
            Some(values) => groups
                .iter()
                .map(|name| match plain(values.get(*name).unwrap_or(&Value::Null)) {
                    value if value.is_empty() => Cell::new("–"),
                    value => Cell::new(value),
                })
                .collect(),
            None => {
                let first = format!("{} others", plain(&one["groups"]));
                let rest = groups.iter().skip(1).map(|_| Cell::new(""));
                std::iter::once(Cell::new(first)).chain(rest).collect()
            }
        };
        let history = items(one, "history");
        cells.push(Cell::new(drawn(history)));
        cells.push(right(history.last().map_or(String::new(), |last| sum(last, "amount"))));
        let points = items(one, "points");
        cells.extend(places.iter().map(|place| {
            right(points.get(*place).map_or(String::new(), |point| sum(point, "value")))
        }));
        cells.push(right(points.last().map_or(String::new(), |last| limits(last, "95"))));
        cells.push(Cell::new(text(one, "currency")));
        let low = one["low_confidence"] == true;
        let model = text(one, "model");
        cells.push(Cell::new(if low { format!("{model} ?") } else { model.to_owned() }));
        cells.push(right(share(&score(one, &[model])["wape"])));
        cells.push(right(share(&score(one, &["naive", "seasonal-naive"])["wape"])));
        table.add_row(cells);
    }
    close(&mut table);
    writeln!(out, "{table}")
}

fn sum(value: &Value, name: &str) -> String {
    amount(text(value, name))
}

fn limits(point: &Value, probability: &str) -> String {
    let limit = |end: &str| sum(point, &format!("{end}_{probability}"));
    format!("{}…{}", limit("low"), limit("high"))
}

/// The best score among models of these names.
fn score<'a>(of: &'a Value, models: &[&str]) -> &'a Value {
    let scores = items(of, "scores").iter().filter(|one| models.contains(&text(one, "model")));
    let wape = |one: &&Value| one["wape"].as_f64().unwrap_or(f64::MAX);
    scores.min_by(|a, b| wape(a).total_cmp(&wape(b))).unwrap_or(&Value::Null)
}

/// A share as a percentage; a dash when nobody knows it.
#[expect(clippy::float_arithmetic, reason = "a share is no money")]
fn share(value: &Value) -> String {
    value.as_f64().map_or_else(|| "–".to_owned(), |share| format!("{:.1} %", share * 100.0))
}

/// The last steps as a line of bars.
#[expect(
    clippy::float_arithmetic,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a picture is no money"
)]
fn drawn(history: &[Value]) -> String {
    let last = &history[history.len().saturating_sub(DRAWN)..];
    let values: Vec<f64> =
        last.iter().map(|one| text(one, "amount").parse().unwrap_or(0.0)).collect();
    let low = values.iter().copied().fold(0.0, f64::min);
    let high = values.iter().copied().fold(low, f64::max);
    let bar = |value: &f64| {
        let height = if high > low { (value - low) / (high - low) } else { 0.0 };
        BARS[((height * 7.0).round() as usize).min(7)]
    };
    values.iter().map(bar).collect()
}

fn steps(out: &mut dyn Write, total: &Value, style: Style) -> io::Result<()> {
    let history = items(total, "history");
    if let Some(last) = history.last() {
        let period = text(last, "period");
        writeln!(out, "{}  {period} was {}", drawn(history), sum(last, "amount"))?;
    }
    let mut table = bare(style);
    table.set_header(["step", "expected", "80 %", "95 %"].map(heading));
    for point in items(total, "points") {
        table.add_row(vec![
            Cell::new(text(point, "period")),
            right(sum(point, "value")),
            right(limits(point, "80")),
            right(limits(point, "95")),
        ]);
    }
    close(&mut table);
    writeln!(out, "{table}\n{}", text(total, "reason"))
}

fn scores(out: &mut dyn Write, total: &Value, style: Style) -> io::Result<()> {
    let scores = items(total, "scores");
    if scores.is_empty() {
        return Ok(());
    }
    let mut table = bare(style);
    let headings = ["on the past", "error", "mase", "bias", "80 % held", "95 % held", "origins"];
    table.set_header(headings.map(heading));
    for one in scores {
        table.add_row(vec![
            Cell::new(text(one, "model")),
            right(share(&one["wape"])),
            right(plain(&one["mase"])),
            right(share(&one["bias"])),
            right(share(&one["coverage_80"])),
            right(share(&one["coverage_95"])),
            right(plain(&one["origins"])),
        ]);
    }
    close(&mut table);
    writeln!(out, "{table}")
}

fn looked_back(out: &mut dyn Write, total: &Value) -> io::Result<()> {
    let back = &total["look_back"];
    let steps = items(back, "steps");
    if steps.is_empty() {
        return Ok(());
    }
    for one in steps {
        let (period, came) = (text(one, "period"), sum(one, "came"));
        writeln!(out, "  {period}: forecast {}, came {came}", sum(one, "forecast"))?;
    }
    writeln!(
        out,
        "forecast error of {} steps {}, bias {}",
        steps.len(),
        share(&back["wape"]),
        share(&back["bias"])
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_of_bars_begins_at_zero_and_shows_the_newest() {
        let history = |amounts: &[&str]| {
            amounts.iter().map(|amount| json!({"amount": amount})).collect::<Vec<_>>()
        };
        assert_eq!(drawn(&history(&["0", "50", "100"])), "▁▅█");
        assert_eq!(drawn(&history(&["7", "7"])), "██");
        assert_eq!(drawn(&history(&["0", "0"])), "▁▁");
        assert_eq!(drawn(&history(&["-100", "0"])), "▁█");
        assert_eq!(drawn(&history(&["5"; 30])).chars().count(), DRAWN);
    }

    #[test]
    fn many_steps_are_shown_by_the_first_and_the_last() {
        assert_eq!(shown(6).len(), 6);
        assert_eq!(shown(36), [0, 1, 2, 35]);
    }
}
