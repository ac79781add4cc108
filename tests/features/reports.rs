//! Reports: the same bytes whenever they are asked as of a position, kept by their digest when they
//! are run, and run once when they are due.

use std::{fmt::Write as _, sync::Arc};

use adapters_sim::Population;
use commands::{
    bills::{Import, OnRepeats},
    ports::Reading,
    reports::{answer, run},
};
use domain::finops::{
    bill::Manner,
    report::{Format, Report},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::World;

fn world() -> World {
    World::empty(Population { seed: 1, regions: 1, resources: 0 })
}

/// A month of two services.
fn bill(month: &str, ec2: &str, s3: &str) -> String {
    let mut file = "BilledCost,EffectiveCost,ListCost,ContractedCost,BillingAccountId,\
        BillingCurrency,BillingPeriodStart,ChargeCategory,ChargePeriodStart,ChargePeriodEnd,\
        ServiceName\n"
        .to_owned();
    for (amount, service) in [(ec2, "EC2"), (s3, "S3")] {
        writeln!(
            file,
            "{amount},{amount},{amount},{amount},42,USD,{month}-01T00:00:00Z,Usage,\
             {month}-05T00:00:00Z,{month}-06T00:00:00Z,{service}"
        )
        .unwrap();
    }
    file
}

async fn book(world: &World, file: &str) -> u64 {
    let read = world.ledger.ports.bills.read(&mut file.as_bytes(), &Reading::default()).unwrap();
    let (source, reason) = ("bill.csv".to_owned(), String::new());
    let (manner, by, repeats) = (Manner::Replace, World::admin(), OnRepeats::default());
    let import = Import { source, manner, reason, by, repeats };
    let booked = world.ledger.book(&read, &import).await.unwrap();
    world.caught_up().await;
    booked.outcomes[0].position
}

async fn define(world: &World, question: Value, schedule: Value) -> Uuid {
    let mut all = json!({"group_by": ["service"], "months": {"last": {"count": 1}}});
    all.as_object_mut().unwrap().extend(question.as_object().unwrap().clone());
    let body = json!({"name": "services", "question": all, "schedule": schedule});
    let id = world.send("report", None, "define", body).await.unwrap().id;
    world.caught_up().await;
    id
}

/// The answer's text as of a position.
async fn text(world: &World, id: Uuid, at: Option<u64>, format: Format) -> String {
    let report = world.ledger.kept_report(id, at).await.unwrap().unwrap();
    let asking = world.ledger.asking(&report.question.unwrap(), at).await.unwrap().unwrap();
    let ports = &world.ledger.ports;
    let answered = answer(ports.bills.as_ref(), ports.answers.as_ref(), &asking, format).unwrap();
    String::from_utf8(answered.bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_has_the_same_bytes_as_of_the_same_position() {
    let world = world();
    let id = define(&world, json!({}), Value::Null).await;
    assert_eq!(text(&world, id, None, Format::Csv).await, "service,currency,amount,lines\n");
    let then = book(&world, &bill("2026-10", "1.000000000001", "2")).await;
    let first = text(&world, id, Some(then), Format::Csv).await;
    assert_eq!(first, "service,currency,amount,lines\nS3,USD,2,1\nEC2,USD,1.000000000001,1\n");
    book(&world, &bill("2026-10", "7", "2")).await;
    book(&world, &bill("2026-11", "9", "3")).await;
    assert_eq!(text(&world, id, Some(then), Format::Csv).await, first, "as it was");
    let now = text(&world, id, None, Format::Csv).await;
    assert_eq!(now, "service,currency,amount,lines\nEC2,USD,9,1\nS3,USD,3,1\n", "the newest month");
    let json: Value = serde_json::from_str(&text(&world, id, None, Format::Json).await).unwrap();
    assert_eq!(
        json["rows"][1],
        json!({"service": "S3", "currency": "USD", "amount": "3", "lines": 1})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_in_its_own_currency_and_at_its_own_prices() {
    let world = world();
    let question = json!({"currency": "EUR", "repriced": true, "months": {"last": {"count": 2}}});
    let id = define(&world, question, Value::Null).await;
    book(&world, &bill("2032-10", "10", "-1")).await;
    let report = world.ledger.kept_report(id, None).await.unwrap().unwrap();
    let asking = world.ledger.asking(&report.question.unwrap(), None).await.unwrap().unwrap();
    let ports = &world.ledger.ports;
    let refused = answer(ports.bills.as_ref(), ports.answers.as_ref(), &asking, Format::Csv);
    assert!(refused.unwrap_err().to_string().contains("no exchange rate from USD to EUR"));
    let rate = json!({"from": "USD", "to": "EUR", "day": "2026-10-01", "rate": "0.5"});
    world.send("exchange-rate", None, "define", rate).await.unwrap();
    let price = json!({"name": "all", "price": {"discount-percent": 20}});
    world.send("repricing", None, "define", price).await.unwrap();
    world.caught_up().await;
    let heading = "service,currency,amount,lines\n";
    let text = text(&world, id, None, Format::Csv).await;
    assert_eq!(text, format!("{heading}EC2,EUR,4,1\nS3,EUR,-0.4,1\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_compares_and_rounds() {
    let world = world();
    let question = json!({"compare": "previous", "digits": 2});
    let id = define(&world, question, Value::Null).await;
    book(&world, &bill("2026-10", "10.004", "-1")).await;
    book(&world, &bill("2026-11", "15.004", "2.004")).await;
    assert_eq!(
        text(&world, id, None, Format::Csv).await,
        "service,currency,amount,lines,before,difference,growth_percent\n\
         EC2,USD,15.01,1,10,5.01,50.1\nS3,USD,2,1,-1,3,\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_kept_by_its_digest_and_recorded_once() {
    let world = world();
    let schedule = json!({"every": "day", "hour": 6});
    let id = define(&world, json!({"format": "parquet"}), schedule).await;
    book(&world, &bill("2026-10", "1", "2")).await;
    let ports = world.ledger.ports.clone();
    assert_eq!(world.ledger.due_reports(world.ledger.now()).await.unwrap().len(), 0);
    let tomorrow = world.ledger.now() + chrono::TimeDelta::days(1);
    let mut digests = Vec::new();
    // Two servers find it due, and both run it; or one dies before it has said so.
    for _ in 0..2 {
        let due = world.ledger.due_reports(tomorrow).await.unwrap();
        let [(found, report, due)] = due.as_slice() else { panic!("{due:?}") };
        assert_eq!(*found, id);
        let question = report.question.clone().unwrap();
        let asking = world.ledger.asking(&question, None).await.unwrap().unwrap();
        digests.push(run(&ports.bills, &ports.answers, &asking, *due, true).unwrap());
    }
    assert_eq!(digests[0], digests[1]);
    for one in &digests {
        world.ledger.record_run(id, one).await.unwrap();
    }
    world.caught_up().await;
    assert!(world.ledger.due_reports(tomorrow).await.unwrap().is_empty());
    let report: Report = world.ledger.kept_report(id, None).await.unwrap().unwrap();
    assert_eq!(report.runs.len(), 1);
    let answers = Arc::clone(&ports.answers);
    let kept = answers.kept(&report.runs[0].digest).unwrap().unwrap();
    assert_eq!((kept.len() as u64, &kept[..4]), (report.runs[0].bytes, &b"PAR1"[..]));
    // A restatement later changes nothing of what was kept.
    book(&world, &bill("2026-10", "5", "2")).await;
    assert_eq!(answers.kept(&report.runs[0].digest).unwrap().unwrap(), kept);
}
