//! Two servers on one PostgreSQL: one log for both. First two stores in one process, then two
//! processes of the program.

use std::sync::Arc;

use commands::ports::{AppendFault, EventLog, Expected};
use domain::log::Record;

use crate::{
    served::{Place, Served},
    support::{
        Database, by_a_caller, fresh_schema, key, open_postgres, postgres_url, request, whole,
    },
};

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

/// Writers that take turns at these servers; each command is then read from the next server, which
/// has seen it by its position. Gives the positions.
fn take_turns(servers: &[Place], round: &str) -> Vec<u64> {
    const WRITERS: usize = 8;
    const EACH: u64 = 15;
    let write = |writer: usize| -> Vec<u64> {
        let turn = |number: u64| {
            let at = writer + number as usize;
            let key = format!("{round}-{}", key(writer, number));
            let made = servers[at % servers.len()].create(&key).unwrap();
            assert_eq!(made.status, 201, "{}", made.body);
            let other = &servers[(at + 1) % servers.len()];
            // A retry that comes to another server is the same request.
            let again = other.create(&key).unwrap();
            assert_eq!(
                (&again.body["id"], again.body["repeated"].as_bool()),
                (&made.body["id"], Some(true))
            );
            let path = format!("/v1/projects/{}", made.body["id"].as_str().unwrap());
            let position = made.body["position"].as_u64().unwrap();
            let seen = [("skyledger-min-position", &*position.to_string())];
            // Who waits longer than one request may is told to ask again.
            let shown = loop {
                let shown = other.get(&path, &seen).unwrap();
                if shown.body["code"] != "view-behind" {
                    break shown;
                }
            };
            assert_eq!((shown.status, &shown.body["name"]), (200, &key.into()), "{shown:?}");
            position
        };
        (1..=EACH).map(turn).collect()
    };
    std::thread::scope(|scope| {
        let writers: Vec<_> =
            (0..WRITERS).map(|writer| scope.spawn(move || write(writer))).collect();
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_share_a_database_and_one_takes_over_when_the_other_is_killed() {
    let (database, folder) = (Database::new().await, tempfile::tempdir().unwrap());
    let data = |name: &str| folder.path().join(name);
    let first = Served::start(&data("first"), &database.url("first"));
    // As the guide says: they need the same keys.
    std::fs::create_dir_all(data("second").join("keys")).unwrap();
    for file in std::fs::read_dir(data("first").join("keys")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), data("second").join("keys").join(file.file_name())).unwrap();
    }
    // The second server finds a token there and issues none.
    std::fs::copy(data("first").join("token"), data("second").join("token")).unwrap();
    let second = Served::start(&data("second"), &database.url("second"));

    let places = [first.place(), second.place()];
    let turns = move |places: Vec<Place>, round: &'static str| {
        tokio::task::spawn_blocking(move || take_turns(&places, round))
    };
    let mut positions = turns(places.to_vec(), "both").await.unwrap();
    assert_eq!(database.projects().await.as_deref(), Some("first"));
    first.kill();
    // What is read here was projected after the first one's death.
    positions.extend(turns(vec![places[1].clone()], "alone").await.unwrap());
    assert_eq!(database.projects().await.as_deref(), Some("second"));

    let log = open_postgres(&database.url("auditor"), "skyledger").await;
    let records = whole(log.as_ref()).await;
    let mut logged: Vec<u64> =
        records.iter().filter(|one| by_a_caller(one)).map(Record::position).collect();
    positions.sort_unstable();
    logged.sort_unstable();
    assert_eq!(positions, logged, "each command is there once, where it was said to be");
    second.kill();
}
