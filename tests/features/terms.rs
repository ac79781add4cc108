//! Costs in another currency and at other prices: what was known when a month was closed counts for
//! it, whatever is said later.

use std::time::Duration;

use adapters_sim::Population;
use commands::{
    allocate::allocate,
    attribute::{AttributeFault, AxisQuery, Whose, attributed},
    bills::{Counting, Import, OnRepeats},
    ports::{Cell, Clock, Filter, Op, Reading},
    submit::SubmitFault,
    terms::effects,
};
use domain::{
    finops::{
        amount::{Amount, BillingMonth, Currency},
        attribution::Axis,
        bill::{Bill, Manner},
        cost::Basis,
        rules::Rules,
    },
    log::Position,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::World;

const HEADING: &str = "BilledCost,EffectiveCost,ListCost,ContractedCost,BillingAccountId,\
    BillingCurrency,BillingPeriodStart,BillingPeriodEnd,ChargeCategory,ChargePeriodStart,\
    ChargePeriodEnd,ServiceName,ResourceId,ConsumedQuantity,ConsumedUnit,Tags\n";

/// What a day of a month is billed at, in dollars, for a service and a team.
type One<'a> = (&'a str, &'a str, &'a str, &'a str);

/// A line of a file.
fn line((day, billed, service, team): &One<'_>) -> String {
    let month: BillingMonth = day[..7].parse().unwrap();
    let (first, next) = (month.first(), month.next().first());
    format!(
        "{billed},{billed},{billed},{billed},42,USD,{first}T00:00:00Z,{next}T00:00:00Z,Usage,\
         {day}T00:00:00Z,{day}T01:00:00Z,{service},,1,Hours,\"{{\"\"team\"\": \"\"{team}\"\"}}\"\n"
    )
}

async fn import(world: &World, lines: &[One<'_>]) {
    let file = lines.iter().fold(HEADING.to_owned(), |file, one| file + &line(one));
    let read = world.ledger.ports.bills.read(&mut file.as_bytes(), &Reading::default()).unwrap();
    assert_eq!(read.quarantined, 0);
    let import = Import {
        source: "bill.csv".into(),
        manner: Manner::Add,
        reason: String::new(),
        by: World::admin(),
        repeats: OnRepeats::default(),
    };
    world.ledger.book(&read, &import).await.unwrap();
}

async fn create(world: &World, kind: &str, verb: &str, body: Value) -> Uuid {
    world.send(kind, None, verb, body).await.unwrap().id
}

fn rate(day: &str, rate: &str) -> Value {
    json!({"from": "USD", "to": "EUR", "day": day, "rate": rate, "source": "ECB"})
}

async fn counting(world: &World, at: Option<Position>) -> Counting {
    world.caught_up().await;
    let month = |text: &str| text.parse().unwrap();
    world.ledger.bills(month("2000-01"), month("9000-01"), at).await.unwrap()
}

/// Teams are centres, converted and re-priced as it is asked for.
async fn whose(
    world: &World,
    counting: &Counting,
    currency: Option<&str>,
    repriced: bool,
) -> Whose {
    let rules =
        json!({"attribution": [{"name": "teams", "conditions": [], "centre_of": "tags.team"}]});
    let rules: Rules = serde_json::from_value(rules).unwrap();
    let around = world.ledger.surroundings(counting, None).await.unwrap();
    let currency = currency.map(|code| Currency::try_from(code.to_owned()).unwrap());
    let terms = world.ledger.terms(counting, currency, repriced).await.unwrap();
    Whose { rules, around, terms }
}

fn asked(groups: &[&str], filters: &[(&str, &str)]) -> AxisQuery {
    let axis = |name: &str| name.parse::<Axis>().unwrap();
    let filter = |(name, value): &(&str, &str)| {
        let values = vec![Cell::from(*value)];
        (axis(name), Filter { column: (*name).to_owned(), op: Op::In, values })
    };
    AxisQuery {
        basis: Basis::Billed,
        groups: groups.iter().map(|name| axis(name)).collect(),
        filters: filters.iter().map(filter).collect(),
    }
}

/// Groups with their amounts, as text.
fn table(world: &World, counting: &Counting, whose: &Whose, asked: &AxisQuery) -> Vec<String> {
    let store = world.ledger.ports.bills.as_ref();
    let table = attributed(store, counting, whose, asked).unwrap();
    let row = |(key, currency, sum): (&[String], &Currency, domain::finops::cost::Sum)| {
        format!("{} {} {currency}", key.join("|"), sum.amount)
    };
    table.iter().map(row).collect()
}

async fn euros(world: &World, groups: &[&str]) -> Vec<String> {
    let counting = counting(world, None).await;
    let whose = whose(world, &counting, Some("EUR"), false).await;
    table(world, &counting, &whose, &asked(groups, &[]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_month_keeps_the_rate_it_was_closed_with() {
    let world = World::empty(Population { seed: 1, regions: 1, resources: 0 });
    let lines = [
        ("2026-09-05", "0.000000000003", "EC2", "a"),
        ("2026-09-05", "10", "EC2", "b"),
        ("2026-10-05", "10", "EC2", "a"),
    ];
    import(&world, &lines).await;
    let before = counting(&world, None).await;
    let nothing = whose(&world, &before, Some("EUR"), false).await;
    let store = world.ledger.ports.bills.as_ref();
    match attributed(store, &before, &nothing, &asked(&[], &[])).unwrap_err() {
        AttributeFault::Refused(refusal) => {
            assert_eq!((refusal.code.code, refusal.code.status), ("no-exchange-rate", 422));
            assert!(refusal.detail.contains("from USD to EUR for 2026-09"), "{refusal}");
        }
        AttributeFault::Costs(fault) => panic!("{fault}"),
    }
    let dollars = whose(&world, &before, Some("USD"), false).await;
    let same = ["2026-09 10.000000000003 USD", "2026-10 10 USD"];
    assert_eq!(table(&world, &before, &dollars, &asked(&["month"], &[])), same);

    let september = create(&world, "exchange-rate", "define", rate("2026-09-30", "0.5")).await;
    let twice = world.send("exchange-rate", None, "define", rate("2026-09-30", "0.6")).await;
    match twice.unwrap_err() {
        SubmitFault::Refused(refusal) => assert_eq!(refusal.code.code, "already-claimed"),
        fault => panic!("{fault}"),
    }
    // Half of a unit goes to the even one.
    let open = ["2026-09 5.000000000002 EUR", "2026-10 5 EUR"];
    assert_eq!(euros(&world, &["month"]).await, open);

    let bill = Bill::id("42", "2026-09".parse().unwrap());
    let closed = world.send("bill", bill, "close", json!({})).await.unwrap();
    world.send("exchange-rate", september, "define", rate("2026-09-30", "0.75")).await.unwrap();
    create(&world, "exchange-rate", "define", rate("2026-09-15", "9")).await;
    assert_eq!(euros(&world, &["month"]).await, [open[0], "2026-10 7.5 EUR"]);
    world.send("exchange-rate", september, "retire", json!({})).await.unwrap();
    assert_eq!(euros(&world, &["month"]).await, [open[0], "2026-10 90 EUR"]);
    // A late line comes into the month by its own rate.
    let corrected = counting(&world, None).await;
    let terms = whose(&world, &corrected, Some("EUR"), false).await;
    let shown = effects(store, &corrected, &terms, &asked(&[], &[])).unwrap();
    let effect = |at: usize| {
        let rate = terms
            .terms
            .rates
            .all()
            .find(|(_, one)| Some((one.id, one.revision)) == shown[at].applied.exchange_rate);
        let (before, after) = (shown[at].before, shown[at].after);
        (before.to_string(), after.to_string(), rate.unwrap().1.rate.to_string())
    };
    let texts = |texts: [&str; 3]| (texts[0].to_owned(), texts[1].to_owned(), texts[2].to_owned());
    let (first, second) = (effect(0), effect(1));
    let mut both = [first, second];
    both.sort();
    assert_eq!(
        both,
        [texts(["10", "90", "9"]), texts(["10.000000000003", "5.000000000002", "0.5"]),]
    );
    let of_closed = shown.iter().find(|one| one.applied.bill == bill).unwrap();
    assert_eq!(of_closed.applied.converted_at, closed.position);
    // And what was said at any moment is said again.
    let then = counting(&world, Some(closed.position)).await;
    let then_whose = whose(&world, &then, Some("EUR"), false).await;
    assert_eq!(table(&world, &then, &then_whose, &asked(&["month"], &[])), open);
}

/// The first days of the month the world's clock shows and of the next one.
fn months(world: &World) -> (String, String) {
    let month = BillingMonth::of(world.clock.now().date_naive());
    (month.next().to_string(), month.next().next().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn prices_change_from_a_day_on_and_the_most_specific_counts() {
    let world = World::empty(Population { seed: 1, regions: 1, resources: 0 });
    let retail = create(&world, "domain", "create", json!({"name": "retail"})).await;
    let shop = create(&world, "project", "create", json!({"name": "shop"})).await;
    let web = create(&world, "project", "create", json!({"name": "web"})).await;
    for project in [shop, web] {
        let assign = json!({"domain": retail});
        world.send("project", project, "assign", assign).await.unwrap();
    }
    let (first, second) = months(&world);
    let price = |name: &str, scope: Value, price: Value, from: String| json!({"name": name, "scope": scope, "price": price, "from": from});
    let middle = format!("{first}-15");
    let begin = format!("{first}-01");
    let all = price("all", json!("all"), json!({"factor": "1.1"}), begin.clone());
    create(&world, "repricing", "define", all).await;
    let domain = price("retail", json!({"domain": retail}), json!({"factor": "1.2"}), begin);
    create(&world, "repricing", "define", domain).await;
    let less = json!({"discount-percent": 50});
    let project = price("shop", json!({"project": shop}), less, middle.clone());
    let project = create(&world, "repricing", "define", project).await;
    let day = |month: &str, day: u32| format!("{month}-{day:02}");
    let days = [day(&first, 14), day(&first, 15), day(&second, 1)];
    let lines: Vec<One<'_>> = days
        .iter()
        .flat_map(|day| ["shop", "web", "else"].map(|team| (day.as_str(), "100", "EC2", team)))
        .collect();
    import(&world, &lines).await;
    let counted = counting(&world, None).await;
    let billed = whose(&world, &counted, None, false).await;
    let groups = ["project"];
    let as_billed = ["else 300 USD", "shop 300 USD", "web 300 USD"];
    assert_eq!(table(&world, &counted, &billed, &asked(&groups, &[])), as_billed);
    let repriced = whose(&world, &counted, None, true).await;
    let expected = ["else 330 USD", "shop 220 USD", "web 360 USD"];
    assert_eq!(table(&world, &counted, &repriced, &asked(&groups, &[])), expected);
    let by_day = asked(&["day"], &[("project", "shop")]);
    assert_eq!(
        table(&world, &counted, &repriced, &by_day),
        [
            format!("{} 120 USD", days[0]),
            format!("{} 50 USD", days[1]),
            format!("{} 50 USD", days[2])
        ]
    );
    // One more that is closed keeps its prices, also when its days are still to come.
    let bill = Bill::id("42", first.parse().unwrap());
    world.send("bill", bill, "close", json!({})).await.unwrap();
    world.send("repricing", project, "end", json!({})).await.unwrap();
    let counted = counting(&world, None).await;
    let repriced = whose(&world, &counted, None, true).await;
    assert_eq!(
        table(&world, &counted, &repriced, &asked(&["month"], &[("project", "shop")])),
        [format!("{first} 170 USD"), format!("{second} 120 USD")]
    );
    // Before what is shared is spread.
    let store = world.ledger.ports.bills.as_ref();
    let allocation = allocate(store, &counted, &repriced, Basis::Billed).unwrap();
    let after = allocation.costs(&repriced, &asked(&groups, &[])).unwrap();
    let after: Vec<_> =
        after.iter().map(|(key, _, sum)| format!("{} {}", key[0], sum.amount)).collect();
    assert_eq!(after, ["else 330", "shop 290", "web 360"]);
    // A quantity is no money.
    let used = AxisQuery { basis: Basis::Quantity, ..asked(&[], &[]) };
    assert_eq!(table(&world, &counted, &repriced, &used), [" 9 USD"]);
    world.clock.advance(Duration::from_hours(24 * 62));
    let late = json!({"name": "x", "price": {"factor": 2}, "from": middle});
    match world.send("repricing", None, "define", late).await.unwrap_err() {
        SubmitFault::Refused(refusal) => assert!(refusal.detail.starts_with("from"), "{refusal}"),
        fault => panic!("{fault}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_come_to_their_total_and_are_the_same_where_they_are_asked_for_alone() {
    let world = World::empty(Population { seed: 1, regions: 1, resources: 0 });
    create(&world, "exchange-rate", "define", rate("2026-01-01", "1/3")).await;
    let mut lines = Vec::new();
    let amounts: Vec<String> = (1..40).map(|n| format!("0.{:012}", n * 7 + 1)).collect();
    for (at, amount) in amounts.iter().enumerate() {
        let service = ["EC2", "S3", "VPC"][at % 3];
        let team = ["a", "b"][at % 2];
        let day = ["2026-09-05", "2026-10-05", "2026-10-06"][at / 13];
        lines.push((day, amount.as_str(), service, team));
    }
    import(&world, &lines).await;
    let counted = counting(&world, None).await;
    let whose = whose(&world, &counted, Some("EUR"), true).await;
    let store = world.ledger.ports.bills.as_ref();
    for groups in [&["service"][..], &["project"], &["service", "project", "day"], &["month"]] {
        let all = attributed(store, &counted, &whose, &asked(groups, &[])).unwrap();
        let total: i128 = all.iter().map(|(_, _, sum)| sum.amount.0).sum();
        let totals: Vec<Amount> = all.totals().unwrap().values().map(|sum| sum.amount).collect();
        assert_eq!(totals, [Amount(total)]);
        for (key, _, sum) in all.iter() {
            let filters: Vec<(&str, &str)> =
                groups.iter().copied().zip(key.iter().map(String::as_str)).collect();
            let one = attributed(store, &counted, &whose, &asked(&[], &filters)).unwrap();
            let alone: Vec<Amount> = one.iter().map(|(_, _, sum)| sum.amount).collect();
            assert_eq!(alone, [sum.amount], "{filters:?}");
        }
    }
}
