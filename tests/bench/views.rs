//! Reading, replaying and listing a log of a million events.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use adapters_store_sqlite::{SqliteViews, start_views};
use commands::ports::{Cell, EventLog, Expected, Filter, Op, Order, Query, Views};
use projections::views::{LENSES, VIEWS};
use uuid::Uuid;

use crate::support::{
    Postgres, Size, append_of, cpu_seconds, cpu_seconds_of_server, forget_peak, open_sqlite,
    peak_mib, percentile, runtime,
};

const REGIONS: [&str; 4] = ["eu-central-1", "eu-west-1", "us-east-1", "us-west-2"];

fn server_of(number: u64, power: &str) -> String {
    let region = REGIONS[(number % 4) as usize];
    format!(
        concat!(
            r#"{{"addresses":["10.{}.{}.{}/32"],"disks":["vol-{:08x}"],"image":"ami-0{:x}","#,
            r#""name":"web-{:07}","network":"subnet-{:x}","power":"{}","security_groups":["sg-{:x}"],"#,
            r#""shape":"m7g.large","tags":{{"env":"{}","team":"team-{}"}},"vpc":"vpc-{:x}","zone":"{}a"}}"#
        ),
        number >> 16 & 255,
        number >> 8 & 255,
        number & 255,
        number,
        number % 50,
        (number * 7_919) % 10_000_000,
        number % 400,
        power,
        number % 900,
        if number.is_multiple_of(3) { "prod" } else { "dev" },
        number % 12,
        number % 40,
        region
    )
}

fn power_of(number: u64) -> &'static str {
    if number.is_multiple_of(50) { "stopped" } else { "running" }
}

/// So many servers of one account, discovered; 200 in one append.
async fn fill(log: &dyn EventLog, count: u64) -> Vec<Uuid> {
    let account = Uuid::now_v7();
    let ids: Vec<Uuid> = (0..count).map(|_| Uuid::now_v7()).collect();
    let numbers: Vec<u64> = (0..count).collect();
    let mut appends = Vec::new();
    for chunk in numbers.chunks(200) {
        let parts = chunk.iter().map(|&number| {
            let data = format!(
                r#"{{"origin":{{"account":"{account}","external_id":"i-{number:017x}","provider":"aws","region":"{}"}},"project":null,"seen":{}}}"#,
                REGIONS[(number % 4) as usize],
                server_of(number, power_of(number)),
            );
            (ids[number as usize], Expected::NoStream, "server", "discovered", data.into_bytes())
        });
        appends.push(append_of(parts.collect()));
    }
    // Four at once share commits.
    let mut appends = appends.into_iter();
    loop {
        let group: Vec<_> = appends.by_ref().take(4).collect();
        if group.is_empty() {
            return ids;
        }
        for appended in futures_join(group.into_iter().map(|one| log.append(one)).collect()).await {
            appended.expect("it appends");
        }
    }
}

async fn futures_join<T, F: Future<Output = T>>(futures: Vec<F>) -> Vec<T> {
    let mut pinned: Vec<_> = futures.into_iter().map(|one| (Box::pin(one), None)).collect();
    std::future::poll_fn(|context| {
        let mut waiting = false;
        for (future, result) in &mut pinned {
            if result.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *result = Some(value),
                    std::task::Poll::Pending => waiting = true,
                }
            }
        }
        if waiting { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    pinned.into_iter().filter_map(|(_, result)| result).collect()
}

/// One in ten changes, so that there is a past to list.
async fn change(log: &dyn EventLog, ids: &[Uuid]) {
    let changed: Vec<(u64, Uuid)> =
        ids.iter().enumerate().step_by(10).map(|(number, id)| (number as u64, *id)).collect();
    for chunk in changed.chunks(200) {
        let parts = chunk.iter().map(|(number, id)| {
            let seen = server_of(*number, "stopping");
            let data = format!(r#"{{"fields":["power"],"seen":{seen}}}"#);
            (*id, Expected::Exact(1), "server", "observed", data.into_bytes())
        });
        log.append(append_of(parts.collect())).await.expect("it appends");
    }
}

async fn read_all(what: &str, log: &dyn EventLog, cpu: impl Fn() -> f64) {
    let (start, before) = (Instant::now(), cpu());
    let (mut position, mut bytes) = (0, 0);
    loop {
        let page = log.read(position, 5_000).await.expect("it reads");
        let Some(last) = page.last() else { break };
        position = last.position();
        bytes += page.iter().map(|record| record.frame().len()).sum::<usize>();
    }
    let used = cpu() - before;
    println!(
        "- {what}: {position} events ({} MiB) read in order in {:.2} s, **{:.2} M events per CPU \
         second**.",
        bytes >> 20,
        start.elapsed().as_secs_f64(),
        position as f64 / used / 1e6
    );
}

fn queries() -> Vec<(&'static str, Query)> {
    let base = || Query::all().with("kind", "server").with("gone", false);
    let order = |column: &str, descending| vec![Order { column: column.to_owned(), descending }];
    let sorted = |query: Query, column: &str, descending| Query {
        order: order(column, descending),
        ..query
    };
    vec![
        ("by name", sorted(base(), "name", false)),
        ("every kind, newest first", sorted(Query::all().with("gone", false), "updated_at", true)),
        ("status = running, newest first", {
            sorted(base().with("status", "running"), "updated_at", true)
        }),
        ("status = stopped (1 in 50), by name", {
            sorted(base().with("status", "stopped"), "name", false)
        }),
        ("region and status, by name", {
            let query = base().with("region", "eu-west-1").with("status", "running");
            sorted(query, "name", false)
        }),
        ("name begins with web-00001, by name", {
            let mut query = base();
            query.filters.push(Filter {
                column: "name".to_owned(),
                op: Op::Prefix,
                values: vec![Cell::Text("web-00001".to_owned())],
            });
            sorted(query, "name", false)
        }),
        ("external id", base().with("external_id", format!("i-{:017x}", 4_711))),
    ]
}

async fn lists(size: Size, views: &SqliteViews, rows: u64, goal_ms: u64, past: u64) {
    println!(
        "\n{rows} rows, pages of 100, {} asks each; goal p99 ≤ {goal_ms} ms, past ≤ 2 ×:\n",
        size.pick(200, 20)
    );
    println!("| filter and order | p50 ms | p99 ms | past: p50 | past: p99 | ratio p50 |");
    println!("|---|--:|--:|--:|--:|--:|");
    for (what, query) in queries() {
        let mut figures = Vec::new();
        for at in [None, Some(past)] {
            let mut took = Vec::new();
            let mut query = Query { at, ..query.clone() };
            for ask in 0..size.pick(200, 20) {
                let start = Instant::now();
                let page = views.list("inventory", &query).await.expect("a page");
                took.push(start.elapsed());
                // Twenty pages deep, then from the top again.
                query.token = if ask % 20 == 19 { None } else { page.next };
            }
            figures.push((percentile(&mut took, 0.5), percentile(&mut took, 0.99)));
        }
        println!(
            "| {what} | {:.2} | **{:.2}** | {:.2} | {:.2} | {:.2} |",
            figures[0].0,
            figures[0].1,
            figures[1].0,
            figures[1].1,
            figures[1].0 / figures[0].0
        );
    }
}

/// Lists of this many rows, one in ten of them changed since.
async fn lists_of(size: Size, rows: u64, goal_ms: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let log = Arc::new(open_sqlite(folder.path()));
    let ids = fill(log.as_ref(), rows).await;
    let past = log.head().await.expect("a head").position;
    change(log.as_ref(), &ids).await;
    let (views, _running) =
        start_views(folder.path().join("views"), log.clone(), VIEWS, LENSES).expect("views");
    let head = log.head().await.expect("a head").position;
    views.reach_position(head, Duration::from_mins(15)).await.expect("they catch up");
    lists(size, &views, rows, goal_ms, past).await;
}

/// Waits until all views are built; gives the seconds until the rows were written, and until the
/// indexes were as well.
async fn built(views: &SqliteViews, head: u64) -> (f64, f64) {
    let start = Instant::now();
    let mut filled = None;
    loop {
        let reached = views.reach_position(head, Duration::from_millis(20)).await.is_ok();
        let folded = views
            .status()
            .await
            .expect("a status")
            .iter()
            .all(|view| view.building.unwrap_or(view.position) >= head);
        if folded || reached {
            filled.get_or_insert(start.elapsed().as_secs_f64());
        }
        if reached {
            let all = start.elapsed().as_secs_f64();
            return (filled.unwrap_or(all), all);
        }
        assert!(start.elapsed() < Duration::from_mins(30), "the views do not catch up");
    }
}

async fn replay(size: Size) {
    let count = size.events(1_000_000, 5_000);
    let folder = tempfile::tempdir().expect("a folder");
    let start = Instant::now();
    let log = Arc::new(open_sqlite(folder.path()));
    let ids = fill(log.as_ref(), count).await;
    println!(
        "\n- embedded: {count} events written 200 to an append in {:.1} s.",
        start.elapsed().as_secs_f64()
    );
    drop(log);
    let start = Instant::now();
    let log = Arc::new(open_sqlite(folder.path()));
    println!(
        "- embedded: opened again in **{:.1} ms** (goal ≤ 100 ms).",
        start.elapsed().as_secs_f64() * 1e3
    );
    read_all("embedded (goal ≥ 1.2 M)", log.as_ref(), cpu_seconds).await;

    change(log.as_ref(), &ids).await;
    drop(ids);
    let head = log.head().await.expect("a head").position;
    forget_peak();
    let cpu = cpu_seconds();
    let (views, _running) =
        start_views(folder.path().join("views"), log.clone(), VIEWS, LENSES).expect("views");
    let (filled, took) = built(&views, head).await;
    println!(
        "- replay of {head} events into all views: rows in {filled:.1} s ({:.0} events/s), with \
         all indexes in {took:.1} s, **{:.0} events/s** (goal ≥ 50,000), {:.1} CPU s, peak memory \
         {} MiB.",
        head as f64 / filled,
        head as f64 / took,
        cpu_seconds() - cpu,
        peak_mib()
    );
    for threads in [1, 2] {
        let start = Instant::now();
        let cpu = cpu_seconds();
        let verified = views.verify("inventory", threads, &|_| {}).await.expect("it verifies");
        println!(
            "- verified with {threads} thread(s) in {:.1} s ({:.0} events/s, {:.1} CPU s): live {} \
             replayed {}, {}.",
            start.elapsed().as_secs_f64(),
            head as f64 / start.elapsed().as_secs_f64(),
            cpu_seconds() - cpu,
            &verified.live[..16.min(verified.live.len())],
            &verified.replayed[..16.min(verified.replayed.len())],
            if verified.live == verified.replayed { "equal" } else { "DIFFERENT" }
        );
    }

    let server = Postgres::start();
    let log = server.open("bench_read").await;
    let count = size.events(1_000_000, 2_000);
    fill(log.as_ref(), count).await;
    println!();
    let cpu = || cpu_seconds() + cpu_seconds_of_server(&server);
    read_all("PostgreSQL, client and server (goal ≥ 0.18 M)", log.as_ref(), cpu).await;
}

pub(crate) fn run_lists(size: Size) {
    runtime().block_on(async {
        lists_of(size, size.events(100_000, 2_000).min(100_000), 20).await;
        lists_of(size, size.events(1_000_000, 5_000), 50).await;
    });
}

pub(crate) fn run_replay(size: Size) {
    runtime().block_on(replay(size));
}
