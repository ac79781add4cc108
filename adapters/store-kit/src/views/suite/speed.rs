//! How fast a store's views are. Not part of the suite: run it in release.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use commands::ports::{Order, Query, Views};
use uuid::Uuid;

use super::{Fixture, MemoryLog, Server, THINGS, Thing, serve};
use projections::view::View;

static ONLY_THINGS: &[&dyn View] = &[&THINGS];

/// Processor time this process used, in hundredths of a second: other work on the machine makes
/// the clock say less.
fn processor_hundredths() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

/// The resident set's peak, in MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) / 1024
}

/// A number that looks random, the same every time.
fn noise(n: u64) -> u64 {
    let mixed = (n ^ (n >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 20
}

fn wanted(n: u64, round: u64) -> Thing {
    let random = noise(n * 7 + round);
    Thing {
        sort: format!("kind-{}", random % 12),
        name: Some(format!("{:06x} machine {n}", random % 0xff_ffff)),
        word: Some(
            ["running", "stopped", "starting", "error"][(random / 16 % 4) as usize].to_owned(),
        ),
        size: Some((random % 100_000) as i64),
        gone: random.is_multiple_of(50),
        project: Some(Uuid::from_u128(u128::from(random % 1_000))),
        tags: [
            ("team".to_owned(), format!("team {}", random % 40)),
            ("note".to_owned(), "x".repeat(200)),
        ]
        .into(),
        state: [("memory_mib".to_owned(), (random % 64 * 512).into())].into(),
    }
}

/// Builds, lists and verifies a view of so many rows; one row in five has a second version.
pub async fn measure<F: Fixture>(fixture: &F, rows: u64) {
    let log = Arc::new(MemoryLog::new(1));
    let id = |n: u64| format!("{:016x}", noise(n) << 20 | n);
    for n in 0..rows {
        log.put_thing(&id(n), &wanted(n, 0));
    }
    let past = rows;
    let mut head = rows;
    for n in 0..rows / 5 {
        head = log.put_thing(&id(n * 5), &wanted(n * 5, 1));
    }
    println!("{rows} rows, {head} records; before: peak {} MiB", peak_mib());
    let begin = (Instant::now(), processor_hundredths());
    let server = serve(fixture, &log, ONLY_THINGS).await;
    server.views.reach_position(head, Duration::from_hours(1)).await.expect("it is built");
    report("replay into the table, with indexes", begin, head);
    for threads in [1, 2] {
        let begin = (Instant::now(), processor_hundredths());
        let found = server.views.verify("things", threads, &|_| {}).await.expect("it verifies");
        assert_eq!(found.first_difference, None);
        report(&format!("verify, {threads} threads"), begin, head);
    }
    let begin = (Instant::now(), processor_hundredths());
    for n in 0..2_000 {
        head = log.put_thing(&id(n * 3), &wanted(n * 3, 2));
        if n % 20 == 19 {
            server.reach(head).await;
        }
    }
    report("following the log, batches of 20", begin, 2_000);
    lists(&server, "now", None).await;
    lists(&server, "past", Some(past)).await;
    println!("peak {} MiB", peak_mib());
    server.running.stop().await;
}

fn report(what: &str, (begin, used): (Instant, u64), records: u64) {
    let elapsed = begin.elapsed();
    let rate = u128::from(records) * 1_000_000 / elapsed.as_micros().max(1);
    let used = (processor_hundredths() - used).max(1);
    println!(
        "{what}: {elapsed:.1?}, {rate}/s, {} per processor second, peak {} MiB",
        records * 100 / used,
        peak_mib()
    );
}

type Shape = (&'static str, fn(u64) -> Query);

async fn lists<S: crate::views::ViewStore>(server: &Server<S>, when: &str, at: Option<u64>) {
    fn by(mut query: Query, column: &str, descending: bool) -> Query {
        query.order = vec![Order { column: column.to_owned(), descending }];
        query
    }
    fn kind(n: u64) -> Query {
        Query::all().with("sort", format!("kind-{}", n % 12)).with("gone", false)
    }
    let shapes: &[Shape] = &[
        ("kind, by key", kind),
        ("kind, by name", |n| by(kind(n), "name", false)),
        ("kind, by size descending", |n| by(kind(n), "size", true)),
        ("kind and word, by name", |n| by(kind(n).with("word", "error"), "name", false)),
        ("kind and word, by size", |n| by(kind(n).with("word", "error"), "size", false)),
        ("kind and project, by name", |n| {
            by(
                kind(n).with("project", Uuid::from_u128(u128::from(n % 1_000)).to_string()),
                "name",
                false,
            )
        }),
        ("project, by size", |n| {
            let project = Uuid::from_u128(u128::from(n % 1_000)).to_string();
            by(Query::all().with("project", project), "size", false)
        }),
        ("word, by name", |n| {
            by(Query::all().with("word", ["running", "stopped"][n as usize % 2]), "name", false)
        }),
        ("gone, by name", |_| by(Query::all().with("gone", true), "name", false)),
        ("all, by name", |_| by(Query::all(), "name", false)),
    ];
    for (name, shape) in shapes {
        let (mut first, mut next) = (Vec::new(), Vec::new());
        for n in 0..100 {
            let mut query = Query { at, ..shape(n) };
            let begin = Instant::now();
            let page = server.views.list("things", &query).await.expect("it fits");
            first.push(begin.elapsed());
            if let Some(token) = page.next {
                query.token = Some(token);
                let begin = Instant::now();
                server.views.list("things", &query).await.expect("it fits");
                next.push(begin.elapsed());
            }
        }
        let figure = |times: &mut Vec<Duration>| {
            times.sort();
            let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
            format!("p50 {:.1?} p99 {:.1?}", at(50), at(99))
        };
        println!("list {when}, {name}: {}; next page {}", figure(&mut first), figure(&mut next));
    }
}
