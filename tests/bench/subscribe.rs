//! Sixteen writers against a live subscriber: nothing missed, no hole.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use commands::ports::EventLog;
use uuid::Uuid;

use crate::support::{Postgres, Size, one_event, open_sqlite, runtime};

async fn watch(what: &str, log: Arc<dyn EventLog>, how_long: Duration) {
    let done = Arc::new(AtomicBool::new(false));
    let follower = {
        let (log, done) = (log.clone(), done.clone());
        tokio::spawn(async move {
            let (mut position, mut holes, mut batches) = (0_u64, 0_u64, 0_u64);
            loop {
                let finished = done.load(Ordering::SeqCst);
                let page = log.read(position, 1_000).await.expect("it reads");
                if page.is_empty() {
                    if finished {
                        return (position, holes, batches);
                    }
                    log.appended(position).await;
                }
                batches += 1;
                for record in page {
                    holes += u64::from(record.position() != position + 1);
                    position = record.position();
                }
            }
        })
    };
    let written = crate::support::closed_loops(16, how_long, {
        let log = log.clone();
        let streams: Vec<Uuid> = (0..16).map(|_| Uuid::now_v7()).collect();
        move |client| {
            let (log, stream) = (log.clone(), streams[client]);
            async move {
                log.append(one_event(stream)).await.expect("it appends");
            }
        }
    })
    .await;
    let head = log.head().await.expect("it has a head").position;
    done.store(true, Ordering::SeqCst);
    let (seen, holes, batches) = follower.await.expect("the follower ends");
    println!(
        "| {what} | {written:.0} | {head} | {} | {holes} | {batches} |",
        head.saturating_sub(seen)
    );
}

pub(crate) fn run(size: Size) {
    let how_long = size.pick(Duration::from_mins(1), Duration::from_secs(2));
    println!("16 writers for {} s.\n", how_long.as_secs());
    println!("| | events/s | events | missed | holes | reads |\n|---|--:|--:|--:|--:|--:|");
    let runtime = runtime();
    let folder = tempfile::tempdir().expect("a folder");
    runtime.block_on(watch("embedded", Arc::new(open_sqlite(folder.path())), how_long));
    let server = Postgres::start();
    let log = runtime.block_on(server.open("bench_subscribe"));
    // A writing transaction that stays open, in another database of the server.
    let psql = |database: &str, sql: &str| {
        let url = server.url.replace("/postgres", &format!("/{database}"));
        let url = if server.url.ends_with("/postgres") {
            format!("{}/{database}", server.url.trim_end_matches("/postgres"))
        } else {
            url
        };
        std::process::Command::new("psql").args(["-q", "-c", sql]).arg(url).spawn().expect("psql")
    };
    psql("postgres", "CREATE DATABASE other").wait().expect("it ends");
    let sql = format!(
        "CREATE TABLE t(x int); BEGIN; INSERT INTO t VALUES (1); SELECT pg_sleep({}); COMMIT;",
        how_long.as_secs() + 5
    );
    let mut long = psql("other", &sql);
    runtime.block_on(watch("PostgreSQL, with a long write elsewhere", log, how_long));
    long.kill().expect("it is stopped");
    long.wait().expect("it ends");
}
