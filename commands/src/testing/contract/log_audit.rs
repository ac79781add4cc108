//! The contract of [`EventLog`]: times, searches, the tree, and moving a log.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use domain::log::{Frontier, Hash, Header, Position, Record, RequestStamp};
use uuid::Uuid;

use super::{
    Stores,
    log::{all, append, assert_in_order, one, part},
};
use crate::ports::{AppendFault, AuditFilter, EventLog, Expected, LogFault};

/// Root and nodes made again from the records alone.
fn tree(records: &[Record]) -> (Frontier, Vec<Hash>) {
    let (mut frontier, mut nodes) = (Frontier::default(), Vec::new());
    for record in records {
        frontier.push(record.leaf(), |node| nodes.push(node.hash));
    }
    (frontier, nodes)
}

/// 600 records: two tiles and some.
async fn fill(log: &Arc<dyn EventLog>) {
    for n in 0..6 {
        let stream = format!("s{}", n % 2);
        let mut append = append(vec![part(&stream, Expected::Any, 100)]);
        append.request =
            Some(RequestStamp { key: format!("key{n}"), digest: format!("digest{n}") });
        log.append(append).await.unwrap();
    }
}

/// As a reader of all records would find it.
pub async fn a_time_finds_its_position(stores: &impl Stores) {
    let log = stores.log("a").await;
    assert_eq!(log.position_at(DateTime::<Utc>::MAX_UTC).await.unwrap(), 0);
    for n in 0..40 {
        log.append(append(vec![part("s", Expected::Any, 1 + n % 3)])).await.unwrap();
    }
    let records = all(&log).await;
    let tick = TimeDelta::microseconds(1);
    for record in &records {
        for time in [record.recorded_at() - tick, record.recorded_at(), record.recorded_at() + tick]
        {
            let wanted = records.partition_point(|record| record.recorded_at() <= time);
            assert_eq!(log.position_at(time).await.unwrap(), wanted as Position);
        }
    }
    assert_eq!(log.position_at(DateTime::<Utc>::MIN_UTC).await.unwrap(), 0);
    let end = records.len() as Position;
    assert_eq!(log.position_at(DateTime::<Utc>::MAX_UTC).await.unwrap(), end);
}

/// Every field of the filter, alone and together, against the filter's own definition.
pub async fn a_search_finds_what_matches_in_both_orders(stores: &impl Stores) {
    let log = stores.log("a").await;
    let projects = [None, Some(Uuid::from_u128(71)), Some(Uuid::from_u128(72))];
    for n in 0..48_usize {
        let mut append = append(vec![part(&format!("s{}", n % 4), Expected::Any, 1 + n % 2)]);
        append.actor = format!("actor{}", n % 3);
        append.correlation_id = Uuid::from_u128(1_000 + (n / 6) as u128);
        append.streams[0].stream.kind = ["disk", "server"][n % 2].into();
        append.streams[0].project = projects[n % 3];
        append.streams[0].events[0].event_type = ["started", "stopped"][n / 24].into();
        log.append(append).await.unwrap();
    }
    let records = all(&log).await;
    let some = records[20].header();
    let none = AuditFilter::default();
    let filters = [
        none.clone(),
        AuditFilter { kind: Some("disk".to_owned()), ..none.clone() },
        AuditFilter { id: Some("s2".to_owned()), ..none.clone() },
        AuditFilter { kind: Some("disk".into()), id: Some("s2".into()), ..none.clone() },
        AuditFilter { kind: Some("disk".into()), id: Some("s1".into()), ..none.clone() },
        AuditFilter { event_type: Some("stopped".to_owned()), ..none.clone() },
        AuditFilter { event_type: Some("never".to_owned()), ..none.clone() },
        AuditFilter { actor: Some("actor1".to_owned()), ..none.clone() },
        AuditFilter { actor: Some("nobody".to_owned()), ..none.clone() },
        AuditFilter { projects: Some(Vec::new()), ..none.clone() },
        AuditFilter { projects: Some(vec![Uuid::from_u128(71)]), ..none.clone() },
        AuditFilter { projects: Some(projects.into_iter().flatten().collect()), ..none.clone() },
        AuditFilter { command_id: Some(some.command_id), ..none.clone() },
        AuditFilter { command_id: Some(Uuid::from_u128(u128::MAX)), ..none.clone() },
        AuditFilter { correlation_id: Some(some.correlation_id), ..none.clone() },
        AuditFilter { since: Some(some.recorded_at), ..none.clone() },
        AuditFilter { until: Some(some.recorded_at), ..none.clone() },
        AuditFilter {
            kind: Some("server".to_owned()),
            event_type: Some("started".to_owned()),
            actor: Some("actor1".to_owned()),
            projects: Some(vec![Uuid::from_u128(71)]),
            since: Some(records[5].recorded_at()),
            until: Some(records[60].recorded_at()),
            ..none.clone()
        },
    ];
    for filter in &filters {
        let ascending: Vec<_> = records.iter().filter(|one| filter.matches(one)).cloned().collect();
        let descending: Vec<_> = ascending.iter().rev().cloned().collect();
        let search = async |from, newest_first, limit| {
            log.search(filter, from, newest_first, limit).await.unwrap()
        };
        assert_eq!(search(0, false, 1_000).await, ascending, "{filter:?}");
        assert_eq!(search(0, true, 1_000).await, descending, "{filter:?}");
        for (newest_first, wanted) in [(false, &ascending), (true, &descending)] {
            let (mut pages, mut from) = (Vec::new(), 0);
            loop {
                let page = search(from, newest_first, 7).await;
                let Some(last) = page.last() else { break };
                assert!(page.len() <= 7);
                from = last.position();
                pages.extend(page);
                // Descending from position 1 there is nothing; 0 would begin anew.
                if newest_first && from == 1 {
                    break;
                }
            }
            assert_eq!(&pages, wanted, "{filter:?} newest first: {newest_first}");
        }
    }
}

/// Nodes of level 8, and the root, are what the records make.
pub async fn nodes_are_the_roots_of_their_tiles(stores: &impl Stores) {
    let log = stores.log("a").await;
    assert_eq!(log.head().await.unwrap().frontier.root(), domain::log::empty_root());
    fill(&log).await;
    let (frontier, nodes) = tree(&all(&log).await);
    assert_eq!(nodes.len(), 2);
    let level = Frontier::TILE_LEVELS;
    assert_eq!(log.nodes(level, 0, 100).await.unwrap(), nodes);
    assert_eq!(log.nodes(level, 1, 1).await.unwrap(), nodes[1..]);
    assert!(log.nodes(level, 2, 9).await.unwrap().is_empty());
    assert!(log.nodes(2 * level, 0, 9).await.unwrap().is_empty());
    let head = log.head().await.unwrap();
    assert_eq!((head.position, head.frontier.size()), (600, 600));
    assert_eq!(head.frontier, frontier);
}

/// Head, streams and requests are the same, and appending goes on where it was.
pub async fn opened_again_it_is_the_same(stores: &impl Stores) {
    let log = stores.log("a").await;
    fill(&log).await;
    let (head, records) = (log.head().await.unwrap(), all(&log).await);
    drop(log);
    let log = stores.log("a").await;
    assert_eq!(log.head().await.unwrap(), head);
    assert_eq!(all(&log).await, records);
    let next = log.append(one("s0", Expected::Exact(300))).await.unwrap();
    assert_eq!(next.first, 601);
    assert!(next.recorded_at >= head.recorded_at);
}

/// In several parts, cut where they may be cut: between records, also inside an append.
pub async fn a_restored_log_has_the_same_head_and_goes_on(stores: &impl Stores) {
    let (from, to) = (stores.log("from").await, stores.log("to").await);
    fill(&from).await;
    let records = all(&from).await;
    to.restore(Vec::new()).await.unwrap();
    for part in [&records[..250], &records[250..251], &records[251..]] {
        to.restore(part.to_vec()).await.unwrap();
    }
    assert_eq!(to.head().await.unwrap(), from.head().await.unwrap());
    assert_eq!(all(&to).await, records);
    let level = Frontier::TILE_LEVELS;
    assert_eq!(to.nodes(level, 0, 9).await.unwrap(), from.nodes(level, 0, 9).await.unwrap());
    for n in 0..6 {
        let key = format!("key{n}");
        let answered = to.request("tester", &key).await.unwrap();
        assert_eq!(answered, from.request("tester", &key).await.unwrap());
        assert_eq!(answered.map(|one| one.last - one.first), Some(99));
    }
    let mut repeat = one("s0", Expected::Any);
    repeat.request = Some(RequestStamp { key: "key2".to_owned(), digest: "digest2".to_owned() });
    assert!(matches!(to.append(repeat).await, Err(AppendFault::Repeated(_))));
    let next = to.append(one("s1", Expected::Exact(300))).await.unwrap();
    assert_eq!((next.first, next.revisions), (601, vec![301]));
    assert_in_order(&all(&to).await);
}

/// A gap, a repetition, a stream that does not follow, a time that goes back: nothing is taken.
pub async fn a_damaged_restore_is_refused(stores: &impl Stores) {
    let (from, to) = (stores.log("from").await, stores.log("to").await);
    fill(&from).await;
    let records = all(&from).await;
    to.restore(records[..10].to_vec()).await.unwrap();
    let head = to.head().await.unwrap();
    let changed = |at: usize, change: fn(&mut Header)| {
        let mut header = records[at].header();
        change(&mut header);
        Record::new(&header, records[at].data())
    };
    let damaged = [
        ("a gap", vec![records[11].clone()], 12),
        ("a repetition", vec![records[9].clone()], 10),
        ("a gap later on", vec![records[10].clone(), records[12].clone()], 13),
        ("a revision", vec![changed(10, |header| header.revision += 1)], 11),
        ("another stream", vec![changed(10, |header| header.id = "none".into())], 11),
        (
            "an older time",
            vec![changed(10, |header| {
                header.recorded_at -= TimeDelta::days(1);
            })],
            11,
        ),
        ("data that is cut", vec![Record::new(&records[10].header(), b"{\"cut\":")], 11),
    ];
    for (what, records, at) in damaged {
        match to.restore(records).await {
            Err(LogFault::Corrupt { position, .. }) => assert_eq!(position, at, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
        assert_eq!(to.head().await.unwrap(), head, "{what}");
    }
    to.restore(records[10..].to_vec()).await.unwrap();
    assert_eq!(to.head().await.unwrap(), from.head().await.unwrap());
}
