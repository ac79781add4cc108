//! The bench: every figure of `docs/benchmarks.md`, made again.
//!
//! ```text
//! cargo bench --bench ledger                  everything, about a quarter of an hour
//! cargo bench --bench ledger -- append lists  some of it
//! cargo bench --bench ledger -- --quick       everything, smaller: does it run at all?
//! cargo bench --bench ledger -- replay --events=200000
//! cargo bench --bench ledger -- cube --bill-generator=gen_bill.py --rows=10000000
//! ```
//!
//! PostgreSQL is started by the bench itself, in a folder of its own, with its defaults (fsync on).
//! Figures that are ratios are measured beside their reference, in turns, in one run.

#![expect(
    clippy::float_arithmetic,
    clippy::cast_precision_loss,
    reason = "a bench divides durations; there is no money in it"
)]

mod append;
mod bills;
mod cube;
mod forecasts;
mod http;
mod launches;
mod placement;
mod resync;
mod subscribe;
mod support;
mod views;

use support::Size;

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Bench = (&'static str, fn(Size));

static BENCHES: &[Bench] = &[
    ("append", append::run),
    ("bills", bills::run),
    ("cube", cube::run),
    ("forecasts", forecasts::run),
    ("http", http::run),
    ("launches", launches::run),
    ("lists", views::run_lists),
    ("placement", placement::run),
    ("replay", views::run_replay),
    ("resync", resync::run),
    ("subscribe", subscribe::run),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let events = arguments.iter().find_map(|one| one.strip_prefix("--events="));
    let size = match events {
        Some(events) => Size::Events(events.parse().expect("--events takes a number")),
        None if arguments.iter().any(|one| one == "--quick") => Size::Quick,
        None => Size::Full,
    };
    let names: Vec<&String> = arguments.iter().filter(|one| !one.starts_with("--")).collect();
    for name in &names {
        assert!(
            BENCHES.iter().any(|(known, _)| known == name),
            "there is no bench {name}, only {:?}",
            BENCHES.iter().map(|(known, _)| known).collect::<Vec<_>>()
        );
    }
    support::machine();
    for (name, run) in BENCHES {
        if names.is_empty() || names.iter().any(|wanted| wanted == name) {
            println!("\n## {name}\n");
            run(size);
        }
    }
}
