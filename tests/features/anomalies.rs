//! Costs that are watched: found after an import, the same when looked for again, changed and
//! cleared when bills are restated, with all of their history.

use std::{collections::BTreeMap, fmt::Write as _};

use adapters_sim::Population;
use commands::{
    anomalies::{Detection, Findings, Watching, detect_all},
    bills::{Import, OnRepeats},
    ledger::Ledger,
    ports::Reading,
};
use domain::{finops::bill::Manner, log::Position};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{World, id_of};

const HEADING: &str = "BilledCost,EffectiveCost,ListCost,ContractedCost,BillingAccountId,BillingCurrency,\
    BillingPeriodStart,BillingPeriodEnd,ChargeCategory,ChargePeriodStart,ChargePeriodEnd,\
    ServiceName\n";

fn world() -> World {
    World::empty(Population { seed: 1, regions: 1, resources: 0 })
}

/// A month's bill of two services: 100 and 50 a day, but on these days of the first one.
fn bill(month: u32, days: u32, other: &BTreeMap<u32, &str>) -> String {
    let mut file = HEADING.to_owned();
    for day in 1..=days {
        let ec2 = other.get(&day).copied().unwrap_or("100");
        for (amount, service) in [(ec2, "EC2"), ("50", "S3")] {
            let next = month + 1;
            writeln!(
                file,
                "{amount},{amount},{amount},{amount},42,USD,2026-{month:02}-01T00:00:00Z,\
                 2026-{next:02}-01T00:00:00Z,Usage,2026-{month:02}-{day:02}T00:00:00Z,\
                 2026-{month:02}-{day:02}T12:00:00Z,{service}"
            )
            .unwrap();
        }
    }
    file
}

async fn book(world: &World, file: &str, manner: Manner) -> Position {
    let read = world.ledger.ports.bills.read(&mut file.as_bytes(), &Reading::default()).unwrap();
    let (source, reason) = ("bill.csv".to_owned(), "a correction".to_owned());
    let (by, repeats) = (World::admin(), OnRepeats::Count);
    let import = Import { source, manner, reason, by, repeats };
    let booked = world.ledger.book(&read, &import).await.unwrap();
    world.caught_up().await;
    booked.outcomes.iter().map(|outcome| outcome.position).max().unwrap()
}

/// Sixty days, the 20th of October four times as much as usual.
async fn autumn(world: &World) {
    book(world, &bill(9, 30, &BTreeMap::new()), Manner::Add).await;
    book(world, &bill(10, 30, &[(20, "400")].into()), Manner::Add).await;
}

async fn define(world: &World, watch: Value) -> Uuid {
    let body = json!({"name": "services", "watch": watch});
    world.send("anomaly-rule", None, "define", body).await.unwrap().id
}

fn by_service() -> Value {
    json!({"group_by": ["service"], "detector": {"statistical": {"minimum": "20"}}})
}

async fn look(world: &World) -> (Watching, Findings) {
    world.caught_up().await;
    let watching = world.ledger.watching().await.unwrap();
    let findings = detect_all(world.ledger.ports.bills.as_ref(), &watching).unwrap();
    (watching, findings)
}

async fn detect(world: &World) -> Detection {
    let (watching, findings) = look(world).await;
    world.ledger.tell_anomalies(&watching, findings).await.unwrap()
}

async fn head(world: &World) -> Position {
    world.log.head().await.unwrap().position
}

async fn history(world: &World, id: Uuid) -> Vec<String> {
    let records = world.history("anomaly", id).await;
    records.iter().map(|record| record.event_type().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_out_of_its_range_is_found_once_and_says_what_was_expected() {
    let world = world();
    define(&world, by_service()).await;
    autumn(&world).await;
    let detection = detect(&world).await;
    assert_eq!((detection.reported.len(), detection.rules), (1, 1), "{detection:?}");
    let row = world.row(detection.reported[0]).await;
    assert_eq!(row["status"], "open");
    assert_eq!(row["name"], "services 2026-10-20 EC2");
    let finding = &row["state"]["finding"];
    assert_eq!(finding["amount"], "400");
    assert_eq!(finding["expected"]["middle"], "100");
    assert_eq!(finding["limit"], finding["expected"]["high"]);
    assert_eq!(row["state"]["as_of"]["inputs"], detection.as_of.inputs);
    let before = head(&world).await;
    let again = detect(&world).await;
    assert_eq!((again.reported.len(), again.unchanged), (0, 1), "{again:?}");
    assert_eq!(head(&world).await, before, "what is known makes no event");
    // Days that come later change nothing of it either.
    book(&world, &bill(11, 15, &BTreeMap::new()), Manner::Add).await;
    assert_eq!(detect(&world).await.unchanged, 1);
    assert_eq!(history(&world, detection.reported[0]).await, ["reported"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restatement_changes_and_clears_what_was_found_and_keeps_its_history() {
    let world = world();
    define(&world, by_service()).await;
    autumn(&world).await;
    let id = detect(&world).await.reported[0];
    let text = json!({"text": "the autumn sale"});
    world.send("anomaly", id, "explain", text).await.unwrap();
    let then = head(&world).await;

    book(&world, &bill(10, 30, &[(20, "350")].into()), Manner::Replace).await;
    let changed = detect(&world).await;
    assert_eq!((changed.updated.as_slice(), changed.reported.len()), ([id].as_slice(), 0));
    let row = world.row(id).await;
    assert_eq!(
        (&row["status"], &row["state"]["finding"]["amount"]),
        (&"explained".into(), &"350".into())
    );

    book(&world, &bill(10, 30, &BTreeMap::new()), Manner::Replace).await;
    let cleared = detect(&world).await;
    assert_eq!((cleared.cleared.as_slice(), cleared.updated.len()), ([id].as_slice(), 0));
    let row = world.row(id).await;
    assert_eq!((&row["status"], &row["gone"]), (&"cleared".into(), &true.into()));
    assert_eq!(detect(&world).await.cleared.len(), 0);

    book(&world, &bill(10, 30, &[(20, "400")].into()), Manner::Replace).await;
    assert_eq!(detect(&world).await.reported, [id], "the same one, not a second");
    assert_eq!(
        history(&world, id).await,
        ["reported", "explained", "updated", "cleared", "reported"]
    );
    let past = world.ledger.ports.views.get("inventory", &id.to_string(), Some(then)).await;
    let past = past.unwrap().unwrap().body;
    assert_eq!(
        (&past["status"], &past["state"]["finding"]["amount"]),
        (&"explained".into(), &"400".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn late_lines_of_a_day_are_added_to_what_was_found() {
    let world = world();
    define(&world, json!({"detector": {"daily": {"amount": "500"}}, "basis": "billed"})).await;
    book(&world, &bill(10, 30, &[(20, "480")].into()), Manner::Add).await;
    let first = detect(&world).await;
    assert_eq!(first.reported.len(), 1);
    let late = bill(10, 20, &BTreeMap::new());
    let late: String = late
        .lines()
        .filter(|line| line.contains("10-20T") || line.starts_with("Billed"))
        .fold(String::new(), |file, line| file + line + "\n");
    book(&world, &late, Manner::Add).await;
    assert_eq!(detect(&world).await.updated, first.reported);
    assert_eq!(world.row(first.reported[0]).await["state"]["finding"]["amount"], "680");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_to_date_is_one_anomaly_however_far_it_goes() {
    let world = world();
    let detector = json!({"month-to-date": {"budget": "4500"}});
    define(&world, json!({"detector": detector, "basis": "billed"})).await;
    // 150 a day are 4,500 in thirty days: on the way it is above the part of 31.
    book(&world, &bill(10, 10, &BTreeMap::new()), Manner::Add).await;
    let first = detect(&world).await;
    assert_eq!(first.reported.len(), 1, "1,500 after 10 of 31 days");
    book(&world, &bill(10, 29, &BTreeMap::new()), Manner::Replace).await;
    assert_eq!(detect(&world).await.updated, first.reported);
    book(&world, &bill(10, 31, &[(31, "-50")].into()), Manner::Replace).await;
    assert_eq!(detect(&world).await.cleared, first.reported, "4,500 in all are the budget");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepaid_purchase_is_no_anomaly_of_effective_cost() {
    let world = world();
    let rule = define(&world, json!({"detector": {"daily": {"amount": "500"}}})).await;
    let mut file = bill(10, 30, &BTreeMap::new());
    file.push_str(
        "9000,0,9000,9000,42,USD,2026-10-01T00:00:00Z,2026-11-01T00:00:00Z,Purchase,\
         2026-10-05T00:00:00Z,2027-10-05T00:00:00Z,EC2\n",
    );
    book(&world, &file, Manner::Add).await;
    assert!(detect(&world).await.reported.is_empty());
    let watch = json!({"detector": {"daily": {"amount": "500"}}, "basis": "billed"});
    world.send("anomaly-rule", rule, "define", json!({"watch": watch})).await.unwrap();
    assert_eq!(detect(&world).await.reported.len(), 1, "as billed it is one");
    world.send("anomaly-rule", rule, "disable", json!({})).await.unwrap();
    assert_eq!(detect(&world).await.rules, 0);
    let rows = world.rows("anomaly").await;
    assert_eq!((rows.len(), &rows[0].body["status"]), (1, &"open".into()), "it stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_is_changed_clears_what_it_does_not_find_any_more() {
    let world = world();
    let rule = define(&world, by_service()).await;
    autumn(&world).await;
    let found = detect(&world).await.reported;
    let mut watch = by_service();
    watch["conditions"] = json!([{"dimension": "service", "compare": "is-not", "values": ["EC2"]}]);
    world.send("anomaly-rule", rule, "define", json!({"watch": watch})).await.unwrap();
    assert_eq!(detect(&world).await.cleared, found);
    // What was before is left as it is, whatever is found there now.
    watch["from"] = json!("2026-10-21");
    watch["conditions"] = json!([]);
    world.send("anomaly-rule", rule, "define", json!({"watch": watch})).await.unwrap();
    let detection = detect(&world).await;
    assert_eq!((detection.reported.len(), detection.cleared.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_between_an_import_and_its_look_or_in_the_middle_loses_and_doubles_nothing()
 {
    let world = world();
    let watch = json!({"group_by": ["service"], "detector": {"daily": {"amount": "60"}}});
    define(&world, watch).await;
    // It dies after the import: nobody has looked.
    book(&world, &bill(10, 30, &BTreeMap::new()), Manner::Add).await;
    let (watching, findings) = look(&world).await;
    assert_eq!(findings.report.len(), 30);
    // The next one dies after a dozen.
    let mut dozen = findings.clone();
    dozen.report = dozen.report.into_iter().take(12).collect();
    let after = Ledger::new(world.ledger.ports.clone());
    assert_eq!(after.tell_anomalies(&watching, dozen).await.unwrap().reported.len(), 12);
    // One that had looked before that goes on, and one looks again.
    let slow = world.ledger.tell_anomalies(&watching, findings).await.unwrap();
    assert_eq!((slow.reported.len(), slow.unchanged), (18, 12));
    let before = head(&world).await;
    let again = detect(&world).await;
    assert_eq!((again.reported.len(), again.updated.len(), again.unchanged), (0, 0, 30));
    assert_eq!(head(&world).await, before);
    assert_eq!(world.rows("anomaly").await.len(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_looked_before_a_restatement_does_not_undo_what_was_seen_after_it() {
    let world = world();
    define(&world, by_service()).await;
    autumn(&world).await;
    let id = detect(&world).await.reported[0];
    book(&world, &bill(10, 30, &[(20, "300")].into()), Manner::Replace).await;
    let (before, old) = look(&world).await;
    book(&world, &bill(10, 30, &BTreeMap::new()), Manner::Replace).await;
    assert_eq!(detect(&world).await.cleared, [id]);
    let late = world.ledger.tell_anomalies(&before, old).await.unwrap();
    assert_eq!((late.reported.len(), late.updated.len()), (0, 0));
    assert_eq!(world.row(id).await["status"], "cleared");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_would_tell_of_everything_tells_nothing_and_says_so() {
    let world = world();
    let watch = json!({"detector": {"daily": {"amount": "0"}}, "group_by": ["resource"]});
    let rule = define(&world, watch).await;
    let heading = HEADING.replace("ServiceName", "ResourceId");
    let lines = (0..1_001).fold(heading, |file, n| {
        file + &format!(
            "1,1,1,1,42,USD,2026-10-01T00:00:00Z,2026-11-01T00:00:00Z,Usage,\
             2026-10-05T00:00:00Z,2026-10-06T00:00:00Z,r-{n}\n"
        )
    });
    book(&world, &lines, Manner::Add).await;
    let before = head(&world).await;
    let detection = detect(&world).await;
    assert!(detection.refused[&rule].contains("1001 new"), "{detection:?}");
    assert_eq!(head(&world).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_files_changes_nothing_of_what_is_found() {
    let mut seen = Vec::new();
    let rule = Uuid::from_u128(7);
    for turned in [false, true] {
        let world = world();
        let body = json!({"name": "services", "watch": by_service()});
        world.send("anomaly-rule", rule, "define", body).await.unwrap();
        let mut files =
            [bill(9, 30, &BTreeMap::new()), bill(10, 30, &[(20, "400"), (25, "190")].into())];
        if turned {
            files.reverse();
        }
        for file in files {
            book(&world, &file, Manner::Add).await;
            detect(&world).await;
        }
        let rows = world.rows("anomaly").await;
        let rows = rows.into_iter().filter(|row| row.body["gone"] != true);
        let rows: BTreeMap<Uuid, Value> =
            rows.map(|row| (id_of(&row.body), row.body["state"]["finding"].clone())).collect();
        assert_eq!(rows.len(), 2);
        seen.push(rows);
    }
    assert_eq!(seen[0], seen[1]);
}

/// Rules that place EC2 in the centre `shop`, published.
async fn place(world: &World) {
    let conditions = json!([{"dimension": "service", "values": ["EC2"]}]);
    let rules =
        json!({"attribution": [{"name": "ec2", "centre": "shop", "conditions": conditions}]});
    let body = json!({"name": "costs", "rules": rules});
    let set = world.send("rule-set", None, "define", body).await.unwrap().id;
    world.send("rule-set", set, "publish", json!({})).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_is_watched_by_the_rules_that_say_whose_costs_are() {
    let world = world();
    let conditions = json!([{"dimension": "project", "values": ["shop"]}]);
    let detector = json!({"statistical": {"minimum": "20"}});
    let watch = json!({"group_by": ["project"], "conditions": conditions, "detector": detector});
    define(&world, watch).await;
    autumn(&world).await;
    assert!(detect(&world).await.reported.is_empty(), "nothing is the shop's yet");
    place(&world).await;
    let found = detect(&world).await.reported;
    assert_eq!(found.len(), 1);
    let finding = &world.row(found[0]).await["state"]["finding"];
    assert_eq!((&finding["group"]["project"], &finding["amount"]), (&"shop".into(), &"400".into()));
}
