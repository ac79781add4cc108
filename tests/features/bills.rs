//! Bills in, costs out: imported twice, restated, closed, asked as they were, explained, and
//! allocated without a unit lost.

use std::{collections::BTreeMap, fmt::Write as _};

use adapters_sim::Population;
use commands::{
    allocate::allocate,
    attribute::Whose,
    bills::{Counting, Import, OnRepeats, costs, explain},
    ports::{BillFault, BillStore, CostQuery, ReadBill, Reading},
    submit::{Outcome, SubmitFault},
};
use domain::{
    finops::{
        amount::{Amount, BillingMonth},
        attribution::Surroundings,
        bill::{Bill, Manner},
        cost::Basis,
        rules::Rules,
    },
    kernel::{Principal, Reach, Role},
    log::Position,
};
use serde_json::json;

use crate::world::World;

pub(crate) const HEADING: &str = "BilledCost,EffectiveCost,ListCost,ContractedCost,BillingAccountId,BillingCurrency,\
    BillingPeriodStart,BillingPeriodEnd,ChargeCategory,ChargePeriodStart,ChargePeriodEnd,\
    ServiceName,Tags\n";

/// A line of October 2026 that costs so much.
fn line(billed: &str, service: &str, env: &str) -> String {
    format!(
        "{billed},{billed},{billed},{billed},42,USD,2026-10-01T00:00:00Z,2026-11-01T00:00:00Z,\
         Usage,2026-10-05T00:00:00Z,2026-10-06T00:00:00Z,{service},\"{{\"\"env\"\": \"\"{env}\"\"}}\"\n"
    )
}

fn file(lines: &[String]) -> String {
    lines.iter().fold(HEADING.to_owned(), |file, line| file + line)
}

fn month() -> BillingMonth {
    "2026-10".to_owned().try_into().unwrap()
}

pub(crate) fn import(manner: Manner, reason: &str) -> Import {
    let (source, repeats) = ("october.csv".into(), OnRepeats::default());
    Import { source, manner, reason: reason.into(), by: World::admin(), repeats }
}

pub(crate) fn read(world: &World, file: &str) -> ReadBill {
    let how = Reading::default();
    world.ledger.ports.bills.read(&mut file.as_bytes(), &how).unwrap()
}

pub(crate) async fn book(
    world: &World,
    file: &str,
    import: Import,
) -> Result<Vec<Outcome>, SubmitFault> {
    Ok(world.ledger.book(&read(world, file), &import).await?.outcomes)
}

async fn counting(world: &World, at: Option<Position>) -> Counting {
    world.caught_up().await;
    world.ledger.bills(month(), month(), at).await.unwrap()
}

fn store(world: &World) -> &dyn BillStore {
    world.ledger.ports.bills.as_ref()
}

/// What all lines come to, as text.
fn total(world: &World, counting: &Counting) -> String {
    let table = costs(store(world), counting, &CostQuery::default()).unwrap();
    let totals = table.totals().unwrap();
    let totals = totals.into_iter().map(|(currency, sum)| format!("{} {currency}", sum.amount));
    totals.collect::<Vec<_>>().join(", ")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_counts_once_however_often_it_is_sent() {
    let world = World::empty(Population { seed: 1, regions: 1, resources: 0 });
    let october = file(&[line("1.00000000001", "EC2", "prod"), line("2", "S3", "dev")]);
    let first = book(&world, &october, import(Manner::Add, "")).await.unwrap();
    assert_eq!((first.len(), first[0].events.len(), first[0].status), (1, 2, "open"));
    let head = world.log.head().await.unwrap().position;
    for manner in [Manner::Add, Manner::Replace] {
        let again = book(&world, &october, import(manner, "")).await.unwrap();
        assert!(again[0].events.is_empty());
    }
    assert_eq!(world.log.head().await.unwrap().position, head);
    assert_eq!(total(&world, &counting(&world, None).await), "3.00000000001 USD");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_month_is_restated_and_stays_to_be_seen_as_it_was() {
    let world = World::empty(Population { seed: 1, regions: 1, resources: 0 });
    let october = file(&[line("1", "EC2", "prod"), line("2", "S3", "dev")]);
    book(&world, &october, import(Manner::Add, "")).await.unwrap();
    let id = Bill::id("42", month());
    let differs = json!({"invoiced": {"USD": "3.01"}});
    let refused = world.send("bill", id, "close", differs).await.unwrap_err();
    assert!(matches!(&refused, SubmitFault::Refused(no) if no.code.code == "bill-differs"));
    let closed = world.send("bill", id, "close", json!({"invoiced": {"USD": "3"}})).await.unwrap();
    assert_eq!(closed.status, "closed");

    let late = file(&[line("0.5", "S3", "dev")]);
    let refused = book(&world, &late, import(Manner::Add, "")).await.unwrap_err();
    assert!(matches!(&refused, SubmitFault::Refused(no) if no.code.code == "bill-closed"));
    book(&world, &late, import(Manner::Add, "late lines")).await.unwrap();
    let now = counting(&world, None).await;
    assert_eq!(total(&world, &now), "3.5 USD");
    let then = counting(&world, Some(closed.position)).await;
    assert_eq!(total(&world, &then), "3 USD", "as it was closed");
    let versions: Vec<_> = now.bills[0].bill.versions.iter().map(|one| one.version).collect();
    assert_eq!(versions, [1, 2]);
    assert_ne!(now.digest(), then.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_file_is_booked_when_one_of_its_months_is_closed() {
    let world = World::empty(Population { seed: 1, regions: 1, resources: 0 });
    let october = file(&[line("1", "EC2", "prod")]);
    book(&world, &october, import(Manner::Add, "")).await.unwrap();
    world.send("bill", Bill::id("42", month()), "close", json!({})).await.unwrap();
    let september = line("7", "EC2", "prod").replace("2026-10-01T", "2026-09-01T");
    let both = file(&[september, line("2", "EC2", "prod")]);
    assert_eq!(read(&world, &both).parts.len(), 2);
    let head = world.log.head().await.unwrap().position;
    assert!(book(&world, &both, import(Manner::Add, "")).await.is_err());
    assert_eq!(world.log.head().await.unwrap().position, head);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_leads_back_to_its_lines_and_the_event_that_brought_them() {
    let world = World::empty(Population { seed: 1, regions: 1, resources: 0 });
    let one = file(&[line("1", "EC2", "prod"), line("-4", "EC2", "dev"), line("2", "S3", "dev")]);
    let other = file(&[line("10", "S3", "dev")]);
    let first = book(&world, &one, import(Manner::Add, "")).await.unwrap();
    book(&world, &other, import(Manner::Add, "")).await.unwrap();
    let counting = counting(&world, None).await;
    let ec2 = commands::ports::Filter {
        column: "service".into(),
        op: commands::ports::Op::In,
        values: vec!["EC2".into()],
    };
    let query =
        CostQuery { filters: vec![("service".parse().unwrap(), ec2)], ..CostQuery::default() };
    let explained = explain(store(&world), &counting, &query, 10).unwrap();
    let lines: Vec<_> = explained
        .lines
        .iter()
        .map(|(_, line)| format!("{} {}", line.number, line.billed))
        .collect();
    assert_eq!(lines, ["3 -4", "2 1"], "the largest first, by magnitude");
    assert_eq!(explained.parts.len(), 1, "the second file has nothing of it");
    assert_eq!(explained.totals.values().map(ToString::to_string).collect::<Vec<_>>(), ["-3"]);
    let part = &explained.parts[0];
    assert_eq!((part.lines, part.segment.source.as_str()), (2, "october.csv"));
    assert_eq!(part.segment.imported_by, "token:admin");
    let event = world.ledger.import_of(part.bill, &part.segment.digest).await.unwrap().unwrap();
    assert_eq!(event.event_type(), "lines-imported");
    assert_eq!(event.position(), first[0].position);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_admin_of_the_whole_estate_brings_bills() {
    let world = World::empty(Population { seed: 1, regions: 1, resources: 0 });
    let read = read(&world, &file(&[line("1", "EC2", "prod")]));
    for (role, reach) in [(Role::Operator, Reach::All), (Role::Admin, Reach::Projects(vec![]))] {
        let by = Principal { name: "token:other".into(), role, reach };
        let import = Import { by, ..import(Manner::Add, "") };
        assert!(world.ledger.book(&read, &import).await.is_err());
    }
    assert_eq!(world.log.head().await.unwrap().position, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_segment_is_an_error_and_never_a_smaller_sum() {
    let world = World::empty(Population { seed: 1, regions: 1, resources: 0 });
    let outcome = book(&world, &file(&[line("1", "EC2", "prod")]), import(Manner::Add, "")).await;
    outcome.unwrap();
    let counting = counting(&world, None).await;
    let digest = &counting.bills[0].bill.segments[0].digest;
    let path = world.folder().join("segments").join(format!("{digest}.parquet"));
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let damaged = |fault| matches!(fault, BillFault::Damaged { .. });
    assert!(damaged(costs(store(&world), &counting, &CostQuery::default()).unwrap_err()));
    std::fs::remove_file(&path).unwrap();
    assert!(damaged(costs(store(&world), &counting, &CostQuery::default()).unwrap_err()));
}

/// A bill with credits, two currencies and amounts of every size; then everything is spread, and
/// every currency comes to what it came to before.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_allocated_is_what_was_billed_to_the_last_unit() {
    let world = World::empty(Population { seed: 1, regions: 1, resources: 0 });
    let mut lines = String::new();
    for n in 0..3_000_i64 {
        let amount = Amount(i128::from((n * 7_919) % 100_003 - 20_000) * 1_234_567 + i128::from(n));
        let env = ["prod", "dev", "test", ""][(n % 4) as usize];
        let service = ["EC2", "S3", "VPC"][(n % 3) as usize];
        let mut one = line(&amount.to_string(), service, env);
        if n % 5 == 0 {
            one = one.replace(",USD,", ",EUR,");
        }
        if n % 7 == 0 {
            one = one.replace(",Usage,", ",Credit,");
        }
        write!(lines, "{one}").unwrap();
    }
    book(&world, &(HEADING.to_owned() + &lines), import(Manner::Add, "")).await.unwrap();
    let counting = counting(&world, None).await;
    let rules: Rules = serde_json::from_value(json!({
        "attribution": [
            {"name": "network", "centre": "pool", "conditions":
                [{"dimension": "service", "values": ["VPC"]}]},
            {"name": "prod", "centre": "shop", "conditions":
                [{"dimension": "tags.env", "values": ["prod"]}]},
            {"name": "dev", "centre": "lab", "match": "any", "conditions":
                [{"dimension": "tags.env", "values": ["dev", "test"]}]},
        ],
        "shared": [
            {"name": "network by cost", "pool": "pool",
             "method": {"proportional": {"fallback": "even"}}},
            {"name": "the rest in thirds", "pool": "unallocated",
             "method": {"fixed": {"percent": {"shop": "33.3", "lab": "33.4"}}}},
        ],
    }))
    .unwrap();
    rules.check().unwrap();
    let rules = Whose::new(rules, Surroundings::default());
    let allocated = allocate(store(&world), &counting, &rules, Basis::Billed).unwrap();
    let mut sums: BTreeMap<String, (i128, i128)> = BTreeMap::new();
    let shares = allocated.shares().unwrap();
    for ((_, currency), share) in &shares {
        let sum = sums.entry(currency.to_string()).or_default();
        sum.0 += share.before.0;
        sum.1 += share.after.0;
    }
    assert_eq!(sums.len(), 2);
    assert!(sums.values().all(|(before, after)| before == after), "{sums:?}");
    let billed: BTreeMap<String, i128> = counting.bills[0]
        .bill
        .sums
        .iter()
        .map(|(currency, sums)| (currency.to_string(), sums.billed.0))
        .collect();
    assert_eq!(billed, sums.into_iter().map(|(currency, sum)| (currency, sum.0)).collect());
    let pool = shares.iter().filter(|((centre, _), _)| centre == "pool");
    assert!(pool.into_iter().all(|(_, share)| share.before.0 != 0 && share.after.0 == 0));
    let lines: u64 = allocated.placed.iter().map(|placed| placed.lines).sum();
    assert_eq!(lines, 3_000, "every line was placed once");
    let again = allocate(store(&world), &counting, &rules, Basis::Billed).unwrap();
    assert_eq!(again, allocated);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_lines_and_files_changes_no_number() {
    let lines: Vec<String> =
        (1..200).map(|n| line(&format!("{n}.{n:03}"), ["EC2", "S3"][n % 2], "dev")).collect();
    let mut turned = lines.clone();
    turned.reverse();
    let mut tables = Vec::new();
    for files in
        [vec![file(&lines)], vec![file(&turned)], vec![file(&lines[..50]), file(&lines[50..])]]
    {
        let world = World::empty(Population { seed: 1, regions: 1, resources: 0 });
        for file in files {
            book(&world, &file, import(Manner::Add, "")).await.unwrap();
        }
        let query = CostQuery { groups: vec!["service".parse().unwrap()], ..CostQuery::default() };
        tables.push(costs(store(&world), &counting(&world, None).await, &query).unwrap());
    }
    assert!(tables.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(tables[0].rows().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_are_there_already_are_not_counted_twice_unless_their_sender_says_so() {
    let world = World::empty(Population { seed: 1, regions: 1, resources: 0 });
    // A bill may have equal lines: they are a finding, and count.
    let (ec2, s3) = (line("1", "EC2", "prod"), line("2", "S3", "dev"));
    let october = file(&[ec2.clone(), s3.clone(), ec2.clone()]);
    assert_eq!(read(&world, &october).findings["line-repeated"], (1, 4));
    book(&world, &october, import(Manner::Add, "")).await.unwrap();
    assert_eq!(total(&world, &counting(&world, None).await), "4 USD");
    let late = file(&[line("0.5", "S3", "dev"), s3, ec2]);
    let refused = book(&world, &late, import(Manner::Add, "")).await.unwrap_err();
    let SubmitFault::Refused(refused) = refused else { panic!("{refused}") };
    assert_eq!(refused.code.code, "bill-repeats");
    let detail = "2 of the 3 lines for 42 in 2026-10 are there already, the first is line 3";
    assert_eq!(refused.detail, detail);
    let with = |repeats| Import { repeats, ..import(Manner::Add, "") };
    let booked = world.ledger.book(&read(&world, &late), &with(OnRepeats::Skip)).await.unwrap();
    assert_eq!((booked.parts[0].lines, booked.repeats[0].lines), (1, 2));
    assert_eq!(total(&world, &counting(&world, None).await), "4.5 USD");
    // Skipped again: every line is there, and nothing changes.
    let again = world.ledger.book(&read(&world, &late), &with(OnRepeats::Skip)).await.unwrap();
    assert_eq!((again.parts[0].lines, again.repeats[0].lines), (0, 3));
    assert_eq!(total(&world, &counting(&world, None).await), "4.5 USD");
    book(&world, &late, with(OnRepeats::Count)).await.unwrap();
    assert_eq!(total(&world, &counting(&world, None).await), "8 USD");
    // All lines anew: what they replace is not compared with.
    book(&world, &october, import(Manner::Replace, "")).await.unwrap();
    assert_eq!(total(&world, &counting(&world, None).await), "4 USD");
}

/// Two files that share a line, sent at the same moment: one of them is refused, whichever is
/// later.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_come_at_once_are_compared_with_each_other() {
    let world = World::empty(Population { seed: 1, regions: 1, resources: 0 });
    let shared = line("1", "EC2", "prod");
    let files = ["2", "4", "8"].map(|cost| file(&[line(cost, "S3", "dev"), shared.clone()]));
    let [one, two, three] =
        files.each_ref().map(|file| book(&world, file, import(Manner::Add, "")));
    let (one, two, three) = tokio::join!(one, two, three);
    let booked = [one, two, three].iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(booked, 1);
    let total = total(&world, &counting(&world, None).await);
    assert!(["3 USD", "5 USD", "9 USD"].contains(&&*total), "{total}");
}
