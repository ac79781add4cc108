//! Bills out as FOCUS: what was exported comes in again as the same, and shared charges come to
//! what they were.

use std::{collections::BTreeMap, fmt::Write as _};

use adapters_sim::Population;
use commands::{
    allocate::allocate,
    attribute::{Placer, Whose},
    bill_export::{PoolShares, Shared, export, pool_shares},
    bills::Counting,
};
use domain::finops::{
    attribution::Surroundings,
    bill::{ByCurrency, Manner},
    cost::Basis,
    focus::Version,
    line::Line,
    rules::Rules,
};
use serde_json::{Value, json};

use crate::{
    bills::{book, import},
    world::World,
};

const HEADING: &str = "BilledCost,EffectiveCost,ListCost,ContractedCost,BillingAccountId,\
    BillingCurrency,BillingPeriodStart,ChargeCategory,ChargePeriodStart,ChargePeriodEnd,\
    ServiceName,ServiceCategory,ConsumedQuantity,ConsumedUnit,InvoiceId,InvoiceIssuerName,\
    ProviderName,PricingQuantity,PricingUnit,ChargeDescription,x_Team,Tags\n";

/// Lines of three services and two currencies, credits and texts with commas among them.
fn lines() -> String {
    let mut lines = HEADING.to_owned();
    for n in 0..600_i64 {
        let cost = |by: i64| format!("{}.{:011}", (n * by) % 97 - 20, n * 7_919 % 100_000_000_000);
        let (service, category) =
            [("EC2", "Compute"), ("S3", "Storage"), ("VPC", "Networking")][(n % 3) as usize];
        let charge = if n % 7 == 0 { "Credit" } else { "Usage" };
        let currency = if n % 5 == 0 { "EUR" } else { "USD" };
        let env = ["prod", "dev", "test", "a\"\"b"][(n % 4) as usize];
        writeln!(
            lines,
            "{},{},{},{},42,{currency},2026-10-01,{charge},2026-10-05T00:00:00Z,\
             2026-10-05T01:00:00Z,{service},{category},{}.25,Hours,INV-{},AWS,AWS,{n},Hours,\
             \"one, two\",t{},\"{{\"\"env\"\": \"\"{}\"\"}}\"",
            cost(3),
            cost(5),
            cost(7),
            cost(11),
            n % 13,
            n % 2,
            n % 3,
            env.replace("\"\"", ""),
        )
        .unwrap();
    }
    lines
}

fn world() -> World {
    World::empty(Population { seed: 1, regions: 1, resources: 0 })
}

async fn taken(file: &str) -> (World, Counting) {
    let world = world();
    book(&world, file, import(Manner::Add, "")).await.unwrap();
    world.caught_up().await;
    let month = || "2026-10".to_owned().try_into().unwrap();
    let counting = world.ledger.bills(month(), month(), None).await.unwrap();
    (world, counting)
}

fn exported(
    world: &World,
    counting: &Counting,
    version: Version,
    shared: Option<&Shared<'_>>,
) -> String {
    let mut file = Vec::new();
    let store = world.ledger.ports.bills.as_ref();
    let mut take = |piece: Vec<u8>| {
        file.extend(piece);
        true
    };
    export(store, counting, version, shared, &mut take).unwrap();
    String::from_utf8(file).unwrap()
}

fn sums(counting: &Counting) -> (u64, ByCurrency) {
    let bill = &counting.bills[0].bill;
    (bill.segments.iter().map(|one| one.lines).sum(), bill.sums.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_exported_comes_in_again_as_the_same() {
    let (first, counting) = taken(&lines()).await;
    for version in Version::ALL {
        let file = exported(&first, &counting, version, None);
        let (second, again) = taken(&file).await;
        assert_eq!(sums(&again), sums(&counting), "{version:?}");
        let invoices = |counting: &Counting| counting.bills[0].bill.segments[0].invoices.clone();
        assert_eq!(invoices(&again), invoices(&counting), "what each invoice comes to");
        assert_eq!(exported(&second, &again, version, None), file, "and out again");
        let lines = |world: &World, counting: &Counting| {
            let digest = &counting.bills[0].bill.segments[0].digest;
            let lines = world.ledger.ports.bills.lines(digest).unwrap();
            lines.map(|line| line.unwrap().tags).collect::<Vec<_>>()
        };
        assert_eq!(lines(&second, &again), lines(&first, &counting));
    }
    let heading = exported(&first, &counting, Version::V1_4, None);
    let heading = heading.lines().next().unwrap();
    assert!(heading.contains("ServiceProviderName") && !heading.contains(",ProviderName"));
    assert!(heading.contains("x_Team"));
}

fn rules() -> Rules {
    let rules: Rules = serde_json::from_value(json!({
        "attribution": [
            {"name": "network", "centre": "network", "conditions":
                [{"dimension": "service", "values": ["VPC"]}]},
            {"name": "storage", "centre": "platform", "conditions":
                [{"dimension": "service", "values": ["S3"]}]},
            {"name": "prod", "centre": "shop", "conditions":
                [{"dimension": "tags.env", "values": ["prod"]}]},
            {"name": "rest", "centre": "lab", "match": "any", "conditions":
                [{"dimension": "service", "values": ["EC2"]}]},
        ],
        "shared": [
            {"name": "network out", "pool": "network", "targets": ["platform", "shop", "lab"],
             "method": {"fixed": {"percent": {"platform": "33.3", "shop": "33.3", "lab": "1"}}}},
            {"name": "platform out", "pool": "platform",
             "targets": ["shop", "lab"], "method": {"proportional": {"fallback": "even"}}},
        ],
    }))
    .unwrap();
    rules.check().unwrap();
    rules
}

/// A file's records, by column.
fn records(file: &str) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_reader(file.as_bytes());
    reader.deserialize().map(|record| record.unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_charges_come_to_what_they_were_and_their_ratios_to_one() {
    let (world, counting) = taken(&lines()).await;
    let whose = Whose::new(rules(), Surroundings::default());
    let store = world.ledger.ports.bills.as_ref();
    let allocated = allocate(store, &counting, &whose, Basis::Billed).unwrap();
    let shares: PoolShares = pool_shares(allocated.moves());
    let placer = Placer::new(&whose, vec![]).unwrap();
    let place = |line: &Line| placer.place(line).0.centre;
    let shared = Shared { place: &place, shares: &shares, method: "costs/1" };
    for version in Version::ALL {
        let file = exported(&world, &counting, version, Some(&shared));
        let own = if version == Version::V1_4 { "" } else { "x_" };
        let records = records(&file);
        assert!(records.len() > 900, "{}", records.len());
        let mut ratio = 0_i128;
        let mut split = 0;
        for record in &records {
            let details = &record[&format!("{own}AllocatedMethodDetails")];
            if details.is_empty() {
                assert_eq!(ratio, 0, "the ratios of the charge before come to one");
                continue;
            }
            split += 1;
            let parsed: Value = serde_json::from_str(details).unwrap();
            assert!(parsed["Elements"][0]["AllocatedRatio"].is_number());
            let text = details.split("Ratio\":").nth(1).unwrap().trim_end_matches(['}', ']']);
            let (whole, part) = text.split_once('.').unwrap_or((text, ""));
            ratio += format!("{whole}{part:0<12}").parse::<i128>().unwrap();
            assert!(ratio <= 10_i128.pow(12));
            ratio %= 10_i128.pow(12);
            assert!(record[&format!("{own}AllocatedMethodId")].starts_with("costs/1/"));
            let tags: Value =
                serde_json::from_str(&record[&format!("{own}AllocatedTags")]).unwrap();
            assert!(tags["env"].is_string());
        }
        assert!(split > 600, "{split}");
        let (_, again) = taken(&file).await;
        assert_eq!(sums(&again).1, sums(&counting).1, "to the last digit");
        // By centre it is what the allocation says.
        let mut by_centre: BTreeMap<(String, String), i128> = BTreeMap::new();
        for record in &records {
            let amount: domain::finops::amount::Amount = record["BilledCost"].parse().unwrap();
            let key = (record["x_Centre"].clone(), record["BillingCurrency"].clone());
            *by_centre.entry(key).or_default() += amount.0;
        }
        for ((centre, currency), share) in allocated.shares().unwrap() {
            let key = (centre, currency.to_string());
            let exported = by_centre.get(&key).copied().unwrap_or_default();
            // Line by line it is rounded once for each, over all of them once.
            assert!((exported - share.after.0).abs() <= 600, "{key:?}: {exported} {share:?}");
        }
    }
}
