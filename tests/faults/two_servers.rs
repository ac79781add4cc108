//! Two server processes on one PostgreSQL: one log for both.

use std::sync::Arc;

use commands::ports::{AppendFault, EventLog, Expected};
use domain::log::Record;

use crate::support::{fresh_schema, open_postgres, postgres_url, request, whole};

/// Follows a log until it has seen so many records; asserts that none is missing or twice.
async fn follow(log: Arc<dyn EventLog>, wanted: u64) -> Vec<Record> {
    let mut seen: Vec<Record> = Vec::new();
    while (seen.len() as u64) < wanted {
        let after = seen.len() as u64;
        let page = log.read(after, 500).await.unwrap();
        if page.is_empty() {
            log.appended(after).await;
        }
        for record in page {
            assert_eq!(record.position(), seen.len() as u64 + 1);
            seen.push(record);
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_write_one_log_and_both_see_all_of_it() {
    const WRITERS: usize = 16;
    const EACH: u64 = 60;
    let schema = fresh_schema();
    let servers = [
        open_postgres(&postgres_url(), &schema).await,
        open_postgres(&postgres_url(), &schema).await,
    ];
    let total = WRITERS as u64 * EACH;
    let followers: Vec<_> =
        servers.iter().map(|log| tokio::spawn(follow(log.clone(), total))).collect();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let log = servers[writer % 2].clone();
        writers.spawn(async move {
            for number in 1..=EACH {
                log.append(request(writer, number)).await.unwrap();
            }
        });
    }
    writers.join_all().await;
    let mut seen = Vec::new();
    for follower in followers {
        seen.push(follower.await.unwrap());
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(whole(servers[0].as_ref()).await, seen[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_servers_one_gets_the_revision() {
    let schema = fresh_schema();
    let servers = [
        open_postgres(&postgres_url(), &schema).await,
        open_postgres(&postgres_url(), &schema).await,
    ];
    for number in 1..=20 {
        let mut race = tokio::task::JoinSet::new();
        for (server, log) in servers.iter().enumerate() {
            let log = log.clone();
            // Two requests for the same next revision of the same stream.
            let mut append = request(0, number);
            append.streams[0].expected = Expected::Exact(number - 1);
            append.request = append.request.map(|mut stamp| {
                stamp.key = format!("{server}-{number}");
                stamp
            });
            race.spawn(async move { log.append(append).await });
        }
        let results = race.join_all().await;
        let won = results.iter().filter(|result| result.is_ok()).count();
        let lost = results
            .iter()
            .filter(|result| matches!(result, Err(AppendFault::Conflict { .. })))
            .count();
        assert_eq!((won, lost), (1, 1), "{results:?}");
    }
}
