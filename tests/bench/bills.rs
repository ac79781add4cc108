//! A bill's file into segments, and questions of its lines: the lake itself, no server.

use std::{fmt::Write, time::Instant};

use adapters_lake::Lake;
use commands::{
    allocate::allocate,
    attribute::Whose,
    bills::{Counting, costs, explain},
    ports::{BillStore, CostQuery, Reading},
};
use domain::finops::{attribution::Surroundings, cost::Basis};

use crate::support::{Size, counting, cpu_seconds, peak_mib};

/// Lines of twelve months, each resource again and again, as real bills have them.
fn file(lines: usize) -> String {
    let mut file =
        "BilledCost,EffectiveCost,ListCost,ContractedCost,BillingAccountId,BillingCurrency,\
        BillingPeriodStart,BillingPeriodEnd,ChargeCategory,ChargePeriodStart,ChargePeriodEnd,\
        SubAccountId,RegionId,ServiceName,ServiceCategory,ResourceId,SkuId,PricingCategory,\
        ConsumedQuantity,ConsumedUnit,Tags\n"
            .to_owned();
    for n in 0..lines {
        let (month, mixed) = (n * 12 / lines + 1, n.wrapping_mul(2_654_435_761) % 100_003);
        let (next_year, next) = if month == 12 { (2026, 1) } else { (2025, month + 1) };
        let (day, hour) = (mixed % 28 + 1, n % 24);
        let _ = writeln!(
            file,
            "{0}.{mixed:08},{0}.{mixed:08},{1}.{mixed:08},{0}.{mixed:08},42,USD,\
             2025-{month:02}-01T00:00:00Z,{next_year}-{next:02}-01T00:00:00Z,Usage,\
             2025-{month:02}-{day:02}T{hour:02}:00:00Z,2025-{month:02}-{day:02}T{hour:02}:59:59Z,\
             sub-{2},region-{3},Service-{4},Compute,res/{mixed:06}-{4},SKU{5},Standard,1.{mixed:06},\
             Hours,\"{{\"\"env\"\":\"\"{6}\"\",\"\"team\"\":\"\"team-{2}\"\"}}\"",
            mixed % 7,
            mixed % 7 + 1,
            mixed % 40,
            mixed % 30,
            mixed % 120,
            mixed % 5_000,
            ["prod", "dev", "test"][mixed % 3],
        );
    }
    file
}

pub(crate) fn run(size: Size) {
    let lines = size.pick(1_000_000, 20_000);
    let folder = tempfile::tempdir().expect("a folder");
    let lake = Lake::open(folder.path()).expect("a lake");
    let file = file(lines);
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let read = lake.read(&mut file.as_bytes(), &Reading::default()).expect("it reads");
    let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    assert_eq!(read.parts.iter().map(|part| part.lines).sum::<u64>(), lines as u64);
    println!(
        "- {lines} lines of FOCUS CSV ({} MiB) into {} segments in {wall:.1} s: **{:.0} lines per \
         CPU second** (goal ≥ 160,000); peak memory {} MiB, the file itself among it.",
        file.len() >> 20,
        read.parts.len(),
        lines as f64 / cpu,
        peak_mib(),
    );
    let counting = counting(read.parts);
    let groups = ["service", "tags.env"].map(|name| name.parse().expect("a dimension"));
    let query = CostQuery { groups: groups.into(), ..CostQuery::default() };
    let start = Instant::now();
    let table = costs(&lake, &counting, &query).expect("costs");
    println!("- by service and tag: {} groups in {:.2} s.", table.rows().len(), seconds(start));
    let one = Counting { bills: counting.bills[..1].to_vec(), position: 0 };
    let start = Instant::now();
    explain(&lake, &one, &query, 100).expect("it is explained");
    println!("- one month explained in {:.3} s.", seconds(start));
    let rules = serde_json::from_value(serde_json::json!({
        "attribution": [
            {"name": "shared", "centre": "pool", "conditions":
                [{"dimension": "service", "values": ["Service-0", "Service-1"]}]},
            {"name": "prod", "centre": "shop", "conditions":
                [{"dimension": "tags.env", "values": ["prod"]}]},
            {"name": "rest", "centre": "lab", "conditions":
                [{"dimension": "tags.env", "values": ["dev", "test"]}]},
        ],
        "shared": [{"name": "by cost", "pool": "pool",
                    "method": {"proportional": {"fallback": "even"}}}],
    }))
    .expect("rules");
    let rules = Whose::new(rules, Surroundings::default());
    let start = Instant::now();
    let allocated = allocate(&lake, &counting, &rules, Basis::Billed).expect("it is allocated");
    let error: i128 = allocated.buckets.values().map(|share| share.after.0 - share.before.0).sum();
    println!("- twelve months allocated in {:.2} s, error {error}.", seconds(start));
}

fn seconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64()
}
