//! How views are kept, rebuilt and verified.

use std::sync::Arc;

use commands::ports::{Cell, EventLog, Filter, Op, Order, Query, Row, ViewFault, Views};
use domain::log::Position;
use projections::view::View;
use serde_json::json;

use super::{Fixture, MemoryLog, PATIENCE, Server, Thing, VIEWS, VIEWS_2, serve, thing};
use crate::views::{Batch, Table, ViewStore, build, engine::ViewStatus, fold::Version};

/// A few hundred records with changes, removals and rows that come back.
fn fill(log: &MemoryLog, records: u64) -> Position {
    let mut head = 0;
    for n in 0..records {
        let id = format!("{}-{}", ["a", "b", "c"][n as usize % 3], n * 7 % 41);
        head = match n % 11 {
            5 => log.remove(&id),
            _ => log.put_thing(
                &id,
                &Thing {
                    size: Some(n as i64 % 5),
                    ..thing(&format!("s{}", n % 3), &format!("n{}", n % 17))
                },
            ),
        };
    }
    head
}

async fn everything<S: ViewStore>(server: &Server<S>, view: &str, at: Position) -> Vec<Row> {
    let mut rows = Vec::new();
    for at in 0..=at {
        rows.extend(server.rows(view, &Query { at: Some(at), ..Query::all() }).await);
    }
    rows
}

async fn ensure_verified<S: ViewStore>(server: &Server<S>, head: Position) {
    for view in ["counts", "things"] {
        let found = server.views.verify(view, 2, &|_| {}).await.unwrap();
        assert_eq!(found.first_difference, None);
        assert_eq!((found.live, found.position), (found.replayed, head));
    }
}

/// See the name.
pub async fn a_crash_between_batches_goes_on_exactly<F: Fixture>(fixture: &F) {
    let log = Arc::new(MemoryLog::new(1));
    let mut head = 0;
    for round in 0..6 {
        let server = serve(fixture, &log, VIEWS).await;
        if round % 2 == 0 {
            server.reach(head).await;
        }
        head = fill(&log, 60);
        // Wherever it is: before, within or after the next batch.
        drop(server);
    }
    let server = serve(fixture, &log, VIEWS).await;
    server.reach(head).await;
    ensure_verified(&server, head).await;
    let rows = server.rows("counts", &Query::all()).await;
    let sum: i64 = rows.iter().map(|row| row.body["count"].as_i64().unwrap()).sum();
    assert_eq!(sum, head as i64, "every record once");
}

/// See the name.
pub async fn a_row_changed_twice_keeps_each_version_once<F: Fixture>(fixture: &F) {
    let log = Arc::new(MemoryLog::new(1));
    log.put_thing("a", &thing("s1", "one"));
    log.put_thing("a", &thing("s1", "two"));
    log.put_thing("a", &thing("s1", "two"));
    let head = log.put_thing("a", &thing("s1", "three"));
    let server = serve(fixture, &log, VIEWS).await;
    server.reach(head).await;
    let found = server.views.verify("things", 1, &|_| {}).await.unwrap();
    assert_eq!(found.rows, 3, "what does not change makes no version");
    let row = server.views.get("things", "a", Some(3)).await.unwrap().unwrap();
    assert_eq!((row.from, row.to), (2, Some(4)));
}

/// See the name.
pub async fn a_rebuild_gives_the_same_rows_while_reads_go_on<F: Fixture>(fixture: &F) {
    let log = Arc::new(MemoryLog::new(1));
    let head = fill(&log, 200);
    let server = serve(fixture, &log, VIEWS).await;
    server.reach(head).await;
    let before = everything(&server, "things", head).await;
    let table = live_table(fixture, &server, "things").await;

    log.pause(true);
    let views = server.views.clone();
    let rebuilding = tokio::spawn(async move { views.rebuild("things", &|_| {}).await });
    wait_for(&server, |status| status.building.is_some()).await;
    let at_head = Query { at: Some(head), ..Query::all() };
    let now = server.keys("things", &Query::all()).await;
    assert_eq!(now, server.keys("things", &at_head).await);
    let during = server.rows("things", &Query { at: Some(head - 1), ..Query::all() }).await;
    assert!(!during.is_empty());
    log.pause(false);
    rebuilding.await.unwrap().unwrap();

    assert_eq!(everything(&server, "things", head).await, before);
    let head = fill(&log, 20);
    server.reach(head).await;
    ensure_verified(&server, head).await;
    let now = live_table(fixture, &server, "things").await;
    assert_eq!(now.generation, table.generation + 1);
}

async fn tables<F: Fixture>(fixture: &F, view: &str) -> Vec<Table> {
    let mut tables = fixture.open().await.tables().await.unwrap();
    tables.retain(|registered| registered.table.view == view);
    tables.into_iter().map(|registered| registered.table).collect()
}

/// The only table of a view, when the server that projects it has tidied up.
async fn live_table<F: Fixture>(fixture: &F, server: &Server<F::Store>, view: &str) -> Table {
    wait_for(server, |status| status.view == view && status.projected_here).await;
    let found = tables(fixture, view).await;
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

async fn wait_for<S: ViewStore>(server: &Server<S>, met: impl Fn(&ViewStatus) -> bool) {
    let mut statuses = server.views.inner.statuses.subscribe();
    let some = statuses.wait_for(|statuses| statuses.values().any(&met));
    tokio::time::timeout(PATIENCE, some).await.expect("it comes in time").expect("it runs");
}

/// See the name.
pub async fn a_half_built_table_is_cleaned_up_at_the_start<F: Fixture>(fixture: &F) {
    let log = Arc::new(MemoryLog::new(1));
    let head = fill(&log, 50);
    let server = serve(fixture, &log, VIEWS).await;
    server.reach(head).await;
    let before = everything(&server, "things", head).await;
    let live = live_table(fixture, &server, "things").await;
    server.stop().await;

    let store = fixture.open().await;
    let half = Table { generation: live.generation + 1, ..live.clone() };
    store.create(&half, false).await.unwrap();
    let version = Version {
        key: "half".to_owned(),
        from: 1,
        to: None,
        columns: vec![projections::view::Value::Null; half.columns.len()],
        body: b"{}".to_vec(),
    };
    let batch = Batch { closes: Vec::new(), inserts: vec![version] };
    store.fill(&half, batch).await.unwrap();
    drop(store);

    let server = serve(fixture, &log, VIEWS).await;
    server.reach(head).await;
    assert_eq!(everything(&server, "things", head).await, before);
    assert_eq!(live_table(fixture, &server, "things").await, live);
}

/// See the name.
pub async fn a_new_version_is_built_beside_the_old<F: Fixture>(fixture: &F) {
    let log = Arc::new(MemoryLog::new(1));
    let head = fill(&log, 80);
    let server = serve(fixture, &log, VIEWS).await;
    server.reach(head).await;
    let before = server.rows("things", &Query::all()).await;
    server.stop().await;

    log.pause(true);
    let server = serve(fixture, &log, VIEWS_2).await;
    wait_for(&server, |status| status.building.is_some()).await;
    assert_eq!(server.rows("things", &Query::all()).await, before, "the old one is served");
    let shouting = Query::all().with("shout", "n1!");
    let early = server.views.list("things", &shouting).await;
    assert!(matches!(early, Err(ViewFault::Behind { .. })), "{early:?}");
    log.pause(false);
    wait_for(&server, |status| status.version == Some(2)).await;
    server.reach(head).await;
    assert!(!server.keys("things", &shouting).await.is_empty());
    assert_eq!(server.rows("things", &Query::all()).await, before);
    wait_for(&server, |status| status.view == "things" && status.building.is_none()).await;
    server.stop().await;
    let server = serve(fixture, &log, VIEWS_2).await;
    server.reach(head).await;
    assert_eq!(live_table(fixture, &server, "things").await.version, 2, "the old table is gone");
}

/// See the name.
pub async fn a_view_of_another_log_is_made_again<F: Fixture>(fixture: &F) {
    let log = Arc::new(MemoryLog::new(1));
    let head = fill(&log, 30);
    let server = serve(fixture, &log, VIEWS).await;
    server.reach(head).await;
    server.stop().await;
    // An older backup, or another log altogether.
    let restored = Arc::new(MemoryLog::new(2));
    let head = fill(&restored, 20);
    let server = serve(fixture, &restored, VIEWS).await;
    server.reach(head).await;
    assert_eq!(server.views.position("things").await.unwrap(), head);
    ensure_verified(&server, head).await;
}

/// See the name.
pub async fn a_view_that_cannot_fold_stops_and_the_others_go_on<F: Fixture>(fixture: &F) {
    let log = Arc::new(MemoryLog::new(1));
    log.put_thing("a", &thing("s1", "one"));
    let server = serve(fixture, &log, VIEWS).await;
    server.reach(1).await;
    log.put("a", "poison", &());
    let head = log.put_thing("a", &thing("s1", "two"));
    wait_for(&server, |status| status.view == "counts" && status.fault.is_some()).await;
    wait_for(&server, |status| status.view == "things" && status.position == head).await;
    let status = server.views.status().await.unwrap();
    let counts = &status[0];
    assert_eq!((counts.view.as_str(), counts.position, counts.lag), ("counts", 1, 2));
    assert!(counts.fault.as_ref().unwrap().contains("position 2: it is poison"), "{counts:?}");
    assert_eq!((status[1].position, status[1].fault.clone()), (head, None));
    assert_eq!(server.keys("counts", &Query::all()).await, ["a"], "what it has is served");
    assert!(server.views.rebuild("counts", &|_| {}).await.is_err());
    assert_eq!(server.keys("counts", &Query::all()).await, ["a"]);
}

/// See the name.
pub async fn verification_is_equal_for_any_number_of_threads<F: Fixture>(fixture: &F) {
    let log = Arc::new(MemoryLog::new(1));
    let head = fill(&log, 500);
    let server = serve(fixture, &log, VIEWS).await;
    server.reach(head).await;
    let mut digests = Vec::new();
    for threads in [1, 2, 5] {
        let found = server.views.verify("things", threads, &|_| {}).await.unwrap();
        assert_eq!((found.first_difference, found.position), (None, head));
        assert!(found.rows > 400, "{}", found.rows);
        digests.extend([found.live, found.replayed]);
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "{digests:?}");
    // Built in bulk, it has the same digest.
    server.views.rebuild("things", &|_| {}).await.unwrap();
    let found = server.views.verify("things", 2, &|_| {}).await.unwrap();
    assert_eq!([found.live, found.replayed], [digests[0].clone(), digests[0].clone()]);
}

/// See the name.
pub async fn a_tampered_row_is_named<F: Fixture>(fixture: &F) {
    let log = Arc::new(MemoryLog::new(1));
    let head = fill(&log, 60);
    let server = serve(fixture, &log, VIEWS).await;
    server.reach(head).await;
    let table = live_table(fixture, &server, "things").await;
    let difference = async |sql: &str| {
        fixture.tamper(&table, &sql.replace("TABLE", &table.name())).await;
        let found = server.views.verify("things", 2, &|_| {}).await.unwrap();
        assert_ne!(found.live, found.replayed);
        found.first_difference.unwrap()
    };
    let first = |sql: &'static str| difference(sql);
    let text = first("UPDATE TABLE SET size = 99 WHERE key = 'c-2'").await;
    assert!(text.starts_with("c-2: ") && text.ends_with("differs in a column"), "{text}");
    let text = first("UPDATE TABLE SET from_position = from_position - 1 WHERE key = 'b-7'").await;
    assert!(text.starts_with("b-7: "), "{text}");
    let text = first("DELETE FROM TABLE WHERE key = 'a-0'").await;
    assert!(text.starts_with("a-0: ") && text.ends_with("is missing"), "{text}");
}

/// Text that no compression makes short: PostgreSQL compresses before it measures.
fn noise(seed: u64, chars: usize) -> String {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let next = move || {
        // A linear congruential generator (Knuth, MMIX).
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from_u32(0x4e00 + (state >> 40) as u32 % 20_000).unwrap()
    };
    std::iter::repeat_with(next).take(chars).collect()
}

/// See the name: it is kept whole in the body, and found and sorted by its beginning.
pub async fn a_text_too_long_for_an_index_stops_no_view<F: Fixture>(fixture: &F) {
    let log = Arc::new(MemoryLog::new(1));
    let long = noise(1, 4_000);
    let twin = format!("{long}, but not the same");
    let key = format!("b-{}", noise(2, 3_000));
    let worded =
        |name: &str| Thing { word: Some(noise(3, 4_000)), ..thing(&noise(4, 4_000), name) };
    log.put_thing("a", &worded(&twin));
    log.put_thing(&key, &worded(&long));
    log.put_thing("c", &worded("short"));
    log.put_thing("d", &thing("s1", "short"));
    let server = serve(fixture, &log, VIEWS).await;
    server.reach(4).await;
    // Ended versions have indexes of their own.
    log.put_thing("a", &worded(&noise(5, 4_000)));
    log.put_thing("a", &worded(&twin));
    let head = log.remove("d");
    server.reach(head).await;
    ensure_verified(&server, head).await;

    let check = async || {
        for key in [key.as_str(), "a"] {
            let row = server.views.get("things", key, None).await.unwrap().unwrap();
            let name = if key == "a" { &twin } else { &long };
            assert_eq!(row.body["name"], json!(name), "the body has the whole");
        }
        for at in [4, head] {
            let by_name = [Order { column: "name".into(), descending: false }];
            let query = Query { at: Some(at), order: by_name.to_vec(), limit: 1, ..Query::all() };
            let found = server.rows("things", &query).await;
            let names: Vec<_> = found.iter().map(|row| row.body["name"].clone()).collect();
            let mut wanted = vec!["short"; if at == 4 { 2 } else { 1 }];
            // The same for as long as they are compared: in the order of their keys.
            wanted.extend([twin.as_str(), long.as_str()]);
            assert_eq!(names, wanted, "at {at}");
            let with = |name: &str, op| {
                let values = vec![Cell::Text(name.to_owned())];
                let filter = Filter { column: "name".into(), op, values };
                Query { filters: vec![filter], ..query.clone() }
            };
            for op in [Op::In, Op::Prefix, Op::Contains] {
                assert_eq!(server.rows("things", &with(&long, op)).await.len(), 2, "{op:?}");
                assert_eq!(server.rows("things", &with(&noise(6, 4_000), op)).await.len(), 0);
            }
            let query =
                Query { at: Some(at), ..Query::all().with("word", noise(3, 4_000).as_str()) };
            assert_eq!(server.rows("things", &query).await.len(), 3);
            let sort = noise(4, 4_000);
            let query = Query { at: Some(at), ..Query::all().with("sort", sort.as_str()) };
            assert_eq!(server.rows("things", &query).await.len(), 3);
        }
    };
    check().await;
    server.views.rebuild("things", &|_| {}).await.unwrap();
    ensure_verified(&server, head).await;
    check().await;
}

/// See the name.
pub async fn many_rows_are_built_with_few_in_memory<F: Fixture>(fixture: &F) {
    let log = Arc::new(MemoryLog::new(1));
    let head = fill(&log, 12_000);
    let server = serve(fixture, &log, VIEWS).await;
    server.reach(head).await;
    let before = server.views.verify("things", 1, &|_| {}).await.unwrap();
    assert_eq!(before.first_difference, None);
    // The same table with four rows in memory: nearly all are written, read and ended again.
    let things: &'static dyn View = VIEWS[1];
    let store = fixture.open().await;
    let feed = Arc::new(crate::views::feed::Feed::new(Arc::clone(&log) as Arc<dyn EventLog>));
    let table = Table::of(things, 100);
    let checkpoint = build::build(&store, &feed, things, &table, 4, &|_| {}).await.unwrap();
    assert_eq!(checkpoint.position, head);
    server.stop().await;
    store.switch(&table).await.unwrap();
    drop(store);
    let server = serve(fixture, &log, VIEWS).await;
    server.reach(head).await;
    assert_eq!(live_table(fixture, &server, "things").await.generation, 100);
    let after = server.views.verify("things", 1, &|_| {}).await.unwrap();
    assert_eq!((after.first_difference, after.live), (None, before.live));
}

/// For stores that several processes share: one projects, all serve, another takes over. Kept
/// apart from the suite, because an embedded store has one process.
pub async fn one_of_two_servers_projects_and_the_other_takes_over<F: Fixture>(fixture: &F) {
    let log = Arc::new(MemoryLog::new(1));
    let head = fill(&log, 40);
    let first = serve(fixture, &log, VIEWS).await;
    first.reach(head).await;
    let second = serve(fixture, &log, VIEWS).await;
    second.reach(head).await;
    let refused = second.views.rebuild("things", &|_| {}).await;
    assert!(matches!(refused, Err(ViewFault::Store(_))), "{refused:?}");
    let head = fill(&log, 40);
    second.reach(head).await;
    assert_eq!(
        second.rows("things", &Query::all()).await,
        first.rows("things", &Query::all()).await
    );
    // The second hears of a table that the first made.
    first.views.rebuild("things", &|_| {}).await.unwrap();
    assert!(!second.keys("things", &Query::all()).await.is_empty());
    let head = fill(&log, 40);
    second.reach(head).await;

    first.stop().await;
    let head = fill(&log, 40);
    second.reach(head).await;
    ensure_verified(&second, head).await;
    second.views.rebuild("things", &|_| {}).await.unwrap();
    ensure_verified(&second, head).await;
}
