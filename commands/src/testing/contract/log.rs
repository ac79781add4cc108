//! The contract of [`EventLog`]: appending and reading. Auditing is in `log_audit`.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use domain::{
    kernel::StreamId,
    log::{Position, Record, RequestStamp},
};
use futures::future::{join, join_all};
use uuid::Uuid;

use super::Stores;
use crate::ports::{
    Append, AppendFault, Appended, EventLog, Expected, LogFault, NewEvent, StreamAppend,
};

pub use super::log_audit::{
    a_damaged_restore_is_refused, a_restored_log_has_the_same_head_and_goes_on,
    a_search_finds_what_matches_in_both_orders, a_time_finds_its_position,
    nodes_are_the_roots_of_their_tiles, opened_again_it_is_the_same,
};

pub(super) fn part(stream: &str, expected: Expected, events: usize) -> StreamAppend {
    StreamAppend {
        stream: StreamId::new("thing", stream),
        expected,
        project: None,
        events: (0..events)
            .map(|number| NewEvent {
                event_type: "noted".to_owned(),
                schema_version: 1,
                data: format!("{{\"number\":{number}}}").into_bytes(),
            })
            .collect(),
    }
}

/// An append by `tester`, under a command id that was never used before.
pub(super) fn append(streams: Vec<StreamAppend>) -> Append {
    static COMMANDS: AtomicU64 = AtomicU64::new(1);
    let command_id = Uuid::from_u128(COMMANDS.fetch_add(1, Ordering::Relaxed).into());
    Append {
        actor: "tester".to_owned(),
        command_id,
        correlation_id: command_id,
        causation_id: None,
        request: None,
        streams,
    }
}

pub(super) fn one(stream: &str, expected: Expected) -> Append {
    append(vec![part(stream, expected, 1)])
}

pub(super) async fn all(log: &Arc<dyn EventLog>) -> Vec<Record> {
    log.read(0, usize::MAX).await.unwrap()
}

fn requested(mut append: Append, key: &str, digest: &str) -> Append {
    append.request = Some(RequestStamp { key: key.to_owned(), digest: digest.to_owned() });
    append
}

fn conflict(result: Result<Appended, AppendFault>) -> (String, u64) {
    match result {
        Err(AppendFault::Conflict { stream, actual, .. }) => (stream.id, actual),
        other => panic!("a conflict was due, not {other:?}"),
    }
}

/// Positions 1, 2, 3 …; revisions 1, 2, 3 … in every stream; times that never go back.
pub(super) fn assert_in_order(records: &[Record]) {
    let mut revisions = HashMap::new();
    for (record, position) in records.iter().zip(1..) {
        assert_eq!(record.position(), position, "a hole or a swap");
        let revision: &mut u64 = revisions.entry(record.stream()).or_default();
        *revision += 1;
        assert_eq!(record.revision(), *revision, "{record:?}");
    }
    assert!(records.is_sorted_by_key(Record::recorded_at));
}

/// Concurrent appends of one to three events.
pub async fn positions_follow_each_other_in_the_order_of_commits(stores: &impl Stores) {
    let log = stores.log("a").await;
    let appends: Vec<_> = (0..100)
        .map(|n| append(vec![part(&format!("s{}", n % 10), Expected::Any, 1 + n % 3)]))
        .collect();
    let answers = join_all(appends.iter().map(|append| log.append(append.clone()))).await;
    let records = all(&log).await;
    assert_in_order(&records);
    assert_eq!(records.len(), (0..100).map(|n| 1 + n % 3).sum::<usize>());
    for (append, answer) in appends.iter().zip(answers) {
        let answer = answer.unwrap();
        let own = &records[answer.first as usize - 1..answer.last as usize];
        assert_eq!(own.len(), append.streams[0].events.len());
        for (place, record) in own.iter().enumerate() {
            let header = record.header();
            assert_eq!(header.command_id, append.command_id);
            assert_eq!(header.event_id, append.event_id(place));
            assert_eq!(header.recorded_at, answer.recorded_at);
            assert_eq!(record.data(), append.streams[0].events[place].data);
        }
        assert_eq!(answer.revisions, [own.last().unwrap().revision()]);
    }
    assert_eq!(log.head().await.unwrap().position, records.len() as Position);
}

/// None, exact and any.
pub async fn expected_revisions_are_kept(stores: &impl Stores) {
    let log = stores.log("a").await;
    assert_eq!(conflict(log.append(one("s", Expected::Exact(1))).await), ("s".to_owned(), 0));
    log.append(one("s", Expected::NoStream)).await.unwrap();
    assert_eq!(conflict(log.append(one("s", Expected::NoStream)).await), ("s".to_owned(), 1));
    assert_eq!(conflict(log.append(one("s", Expected::Exact(0))).await), ("s".to_owned(), 1));
    let second = log.append(one("s", Expected::Exact(1))).await.unwrap();
    assert_eq!((second.first, second.last, second.revisions), (2, 2, vec![2]));
    assert_eq!(log.append(one("s", Expected::Any)).await.unwrap().revisions, [3]);
    assert_eq!(log.append(one("t", Expected::Exact(0))).await.unwrap().revisions, [1]);
    assert_eq!(all(&log).await.len(), 4);
}

/// The first stream that stands wrong is named, and nothing of the append is there.
pub async fn several_streams_are_written_all_or_none(stores: &impl Stores) {
    let log = stores.log("a").await;
    let both = |s, t| append(vec![part("s", s, 2), part("t", t, 3)]);
    let first = log.append(both(Expected::NoStream, Expected::NoStream)).await.unwrap();
    assert_eq!((first.first, first.last, first.revisions), (1, 5, vec![2, 3]));
    let refused = log.append(both(Expected::Exact(2), Expected::NoStream)).await;
    assert_eq!(conflict(refused), ("t".to_owned(), 3));
    let refused = log.append(both(Expected::Exact(7), Expected::NoStream)).await;
    assert_eq!(conflict(refused), ("s".to_owned(), 2));
    assert_eq!(all(&log).await.len(), 5);
    let kinds: Vec<_> = all(&log).await.iter().map(|record| record.id().to_owned()).collect();
    assert_eq!(kinds, ["s", "s", "t", "t", "t"]);
}

/// An append may look at a stream without writing it, or only look.
pub async fn a_stream_without_events_is_only_checked(stores: &impl Stores) {
    let log = stores.log("a").await;
    log.append(one("s", Expected::NoStream)).await.unwrap();
    let look = |s| append(vec![part("t", Expected::Any, 1), part("s", s, 0)]);
    assert_eq!(log.append(look(Expected::Exact(1))).await.unwrap().revisions, [1, 1]);
    assert_eq!(conflict(log.append(look(Expected::NoStream)).await), ("s".to_owned(), 1));
    let only = append(vec![part("s", Expected::Exact(1), 0), part("u", Expected::NoStream, 0)]);
    let answer = log.append(requested(only, "key", "digest")).await.unwrap();
    assert_eq!((answer.first, answer.last, answer.revisions), (2, 2, vec![1, 0]));
    // What wrote nothing has nothing to answer with later.
    assert_eq!(log.request("tester", "key").await.unwrap(), None);
    assert_eq!(all(&log).await.len(), 2);
}

/// The losers fail; none is swallowed.
pub async fn of_twenty_appends_at_one_revision_one_wins(stores: &impl Stores) {
    let log = stores.log("a").await;
    log.append(one("s", Expected::NoStream)).await.unwrap();
    let answers = join_all((0..20).map(|_| log.append(one("s", Expected::Exact(1))))).await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 19));
    for loser in lost {
        assert_eq!(conflict(loser), ("s".to_owned(), 2));
    }
    assert_eq!(all(&log).await.len(), 2);
}

/// Twenty sends at once: one is written, nineteen get its answer.
pub async fn of_twenty_sends_of_one_request_one_is_written(stores: &impl Stores) {
    let log = stores.log("a").await;
    log.append(one("before", Expected::Any)).await.unwrap();
    let send = || {
        requested(append(vec![part(&Uuid::nil().to_string(), Expected::Any, 2)]), "key", "digest")
    };
    let answers = join_all((0..20).map(|_| log.append(send()))).await;
    let mut written = 0;
    for answer in answers {
        match answer {
            Ok(appended) => {
                assert_eq!((appended.first, appended.last), (2, 3));
                written += 1;
            }
            Err(AppendFault::Repeated(answered)) => {
                assert_eq!((answered.first, answered.last), (2, 3));
                assert_eq!(answered.digest, "digest");
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(written, 1);
    assert_eq!(all(&log).await.len(), 3);
}

/// Also after the log was closed, with another digest, and before revisions are looked at.
pub async fn a_repeated_request_gets_the_first_answer(stores: &impl Stores) {
    let log = stores.log("a").await;
    let send = |digest| requested(one("s", Expected::NoStream), "key", digest);
    log.append(send("first")).await.unwrap();
    drop(log);
    let log = stores.log("a").await;
    let Err(AppendFault::Repeated(answered)) = log.append(send("second")).await else {
        panic!("the key was used before");
    };
    assert_eq!((answered.digest.as_str(), answered.first, answered.last), ("first", 1, 1));
    assert_eq!(log.request("tester", "key").await.unwrap(), Some(answered));
    assert_eq!(log.request("tester", "other").await.unwrap(), None);
    assert_eq!(log.request("another", "key").await.unwrap(), None);
    // A key is its actor's own.
    let mut another = requested(one("t", Expected::NoStream), "key", "first");
    another.actor = "another".into();
    assert_eq!(log.append(another).await.unwrap().first, 2);
    // A refused append did not use its key.
    let refused = requested(one("s", Expected::NoStream), "later", "d");
    conflict(log.append(refused).await);
    assert_eq!(log.request("tester", "later").await.unwrap(), None);
    log.append(requested(one("s", Expected::Exact(1)), "later", "d")).await.unwrap();
    assert_eq!(all(&log).await[2].request().unwrap().key, "later");
}

/// Good and bad appends at once: each gets its own answer.
pub async fn what_is_refused_does_not_touch_its_neighbours(stores: &impl Stores) {
    let log = stores.log("a").await;
    let answers = join_all((0..60).map(|n| {
        let stream = format!("s{n}");
        log.append(match n % 3 {
            0 => one(&stream, Expected::Exact(9)),
            1 => one(&stream, Expected::NoStream),
            _ => {
                let mut large = one(&stream, Expected::Any);
                large.streams[0].events[0].data = vec![b'1'; Append::DATA_BYTES_MAX + 1];
                large
            }
        })
    }))
    .await;
    for (n, answer) in answers.into_iter().enumerate() {
        match n % 3 {
            0 => assert_eq!(conflict(answer), (format!("s{n}"), 0)),
            1 => assert_eq!(answer.unwrap().revisions, [1]),
            _ => assert!(matches!(answer, Err(AppendFault::Fault(LogFault::Unexpected(_))))),
        }
    }
    let records = all(&log).await;
    assert_in_order(&records);
    assert_eq!(records.len(), 20);
}

/// Each limit of [`Append`], and one append that is exactly at them.
pub async fn an_append_out_of_bounds_is_refused(stores: &impl Stores) {
    let log = stores.log("a").await;
    let with_data = |data: Vec<u8>| {
        let mut append = one("s", Expected::Any);
        append.streams[0].events[0].data = data;
        append
    };
    let long_id = "i".repeat(StreamId::ID_BYTES_MAX + 1);
    for refused in [
        with_data(vec![b'1'; Append::DATA_BYTES_MAX + 1]),
        with_data(b"{\"cut\":".to_vec()),
        append(vec![part("s", Expected::Any, Append::EVENTS_MAX + 1)]),
        append(vec![part("s", Expected::Any, 1), part("s", Expected::Any, 1)]),
        append(vec![part(&long_id, Expected::Any, 1)]),
        requested(one("s", Expected::Any), "", "d"),
        requested(one("s", Expected::Any), &"k".repeat(Append::KEY_BYTES_MAX + 1), "d"),
    ] {
        let answer = log.append(refused).await;
        assert!(matches!(answer, Err(AppendFault::Fault(LogFault::Unexpected(_)))), "{answer:?}");
    }
    assert_eq!(log.head().await.unwrap().position, 0);
    let mut largest = append(vec![part(&long_id[1..], Expected::Any, Append::EVENTS_MAX)]);
    largest.streams[0].events[0].data = vec![b'1'; Append::DATA_BYTES_MAX];
    let largest = requested(largest, &"k".repeat(Append::KEY_BYTES_MAX), "d");
    assert_eq!(log.append(largest).await.unwrap().last, Append::EVENTS_MAX as Position);
    assert_eq!(all(&log).await[0].data().len(), Append::DATA_BYTES_MAX);
}

/// A stream's own records only, in order, from any revision.
pub async fn a_stream_reads_in_pages(stores: &impl Stores) {
    let log = stores.log("a").await;
    for _ in 0..7 {
        let both = append(vec![part("s", Expected::Any, 100), part("t", Expected::Any, 1)]);
        log.append(both).await.unwrap();
    }
    let stream = StreamId::new("thing", "s");
    let revisions = |records: Vec<Record>| {
        assert!(records.iter().all(|record| record.id() == "s"));
        records.iter().map(Record::revision).collect::<Vec<_>>()
    };
    let read = async |after, limit| revisions(log.stream(&stream, after, limit).await.unwrap());
    assert_eq!(read(0, 3).await, [1, 2, 3]);
    assert_eq!(read(3, 2).await, [4, 5]);
    assert_eq!(read(0, usize::MAX).await, (1..=700).collect::<Vec<_>>());
    assert_eq!(read(699, 10).await, [700]);
    assert!(read(700, 10).await.is_empty());
    assert!(log.stream(&StreamId::new("thing", "none"), 0, 10).await.unwrap().is_empty());
    assert!(log.stream(&StreamId::new("other", "s"), 0, 10).await.unwrap().is_empty());
    let positions: Vec<_> = log.read(705, 3).await.unwrap().iter().map(Record::position).collect();
    assert_eq!(positions, [706, 707]);
    assert!(log.read(707, 3).await.unwrap().is_empty());
    assert!(log.read(0, 0).await.unwrap().is_empty());
}

/// It ends at once when the record is there, and else with the append.
pub async fn waiting_ends_with_the_next_record(stores: &impl Stores) {
    let log = stores.log("a").await;
    log.append(one("s", Expected::Any)).await.unwrap();
    log.appended(0).await;
    let ((), appended) = join(log.appended(1), log.append(one("s", Expected::Any))).await;
    assert_eq!(appended.unwrap().last, 2);
}

/// Sixteen writers, one subscriber: nothing is missed, no holes, streams keep their order.
pub async fn a_live_subscriber_misses_nothing(stores: &impl Stores) {
    const WRITERS: usize = 16;
    const EACH: usize = 60;
    let log = stores.log("a").await;
    let writers = join_all((0..WRITERS).map(|writer| {
        let log = &log;
        async move {
            let mut last = 0;
            for turn in 0..EACH {
                // Every fifth goes wrong, as in life, and must leave no hole.
                if turn % 5 == 0 {
                    let wrong = log.append(one(&format!("w{writer}"), Expected::Exact(999))).await;
                    assert!(wrong.is_err());
                }
                let streams = vec![
                    part(&format!("w{writer}"), Expected::Exact(turn as u64), 1),
                    part("shared", Expected::Any, turn % 2),
                ];
                let answer = log.append(append(streams)).await.unwrap();
                assert!(answer.first > last, "a later append got an earlier position");
                last = answer.last;
            }
        }
    }));
    let expected = WRITERS * (EACH + EACH / 2);
    let subscriber = async {
        let mut seen: Vec<Record> = Vec::new();
        while seen.len() < expected {
            let after = seen.last().map_or(0, Record::position);
            let page = log.read(after, 50).await.unwrap();
            if page.is_empty() {
                log.appended(after).await;
            }
            seen.extend(page);
        }
        seen
    };
    let (_, seen) = join(writers, subscriber).await;
    assert_in_order(&seen);
    assert_eq!(seen, all(&log).await, "a reader that lives sees what a later one sees");
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for record in &seen {
        *counts.entry(record.id().to_owned()).or_default() += 1;
    }
    assert_eq!(counts.remove("shared"), Some(WRITERS * (EACH / 2)));
    assert_eq!(counts.len(), WRITERS);
    assert!(counts.values().all(|count| *count == EACH));
}
