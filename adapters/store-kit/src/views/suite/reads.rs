//! What readers may rely on.

use std::{sync::Arc, time::Duration};

use commands::ports::{Cell, Filter, Op, Order, Query, ViewFault, Views};
use domain::kernel::Reach;
use serde_json::json;
use uuid::Uuid;

use super::{Fixture, LENSES, MemoryLog, Thing, VIEWS, serve, tagged, thing};

fn by(column: &str, descending: bool) -> Order {
    Order { column: column.to_owned(), descending }
}

fn filter(column: &str, op: Op, values: &[Cell]) -> Filter {
    Filter { column: column.to_owned(), op, values: values.to_vec() }
}

/// See the name.
pub async fn lists_filter_and_sort<F: Fixture>(fixture: &F) {
    let log = Arc::new(MemoryLog::new(1));
    log.put_thing("a", &Thing { size: Some(2), ..thing("s1", "Zürich") });
    log.put_thing("b", &Thing { size: Some(1), ..thing("s1", "Zug") });
    log.put_thing("c", &Thing { name: None, size: Some(1), ..thing("s1", "") });
    let head = log.put_thing("d", &Thing { gone: true, ..thing("s2", "aarau") });
    let server = serve(fixture, &log, VIEWS).await;
    server.reach(head).await;

    let list = |filters: Vec<Filter>, order: Vec<Order>| {
        let query = Query { filters, order, limit: 2, ..Query::all() };
        let server = &server;
        async move { server.keys("things", &query).await.concat() }
    };
    assert_eq!(list(vec![], vec![]).await, "abcd");
    assert_eq!(list(vec![], vec![by("name", false)]).await, "cbad", "nothing first, then by bytes");
    assert_eq!(list(vec![], vec![by("name", true)]).await, "dabc");
    assert_eq!(list(vec![], vec![by("size", false), by("name", true)]).await, "dbca");
    assert_eq!(list(vec![], vec![by("size", true), by("name", false)]).await, "acbd");
    let s1 = || filter("sort", Op::In, &["s1".into()]);
    assert_eq!(list(vec![s1()], vec![by("name", false)]).await, "cba");
    let some = |column, op, values: &[Cell]| list(vec![filter(column, op, values)], vec![]);
    assert_eq!(some("name", Op::In, &[Cell::Null, "Zug".into()]).await, "bc");
    assert_eq!(some("name", Op::NotIn, &["Zug".into()]).await, "acd", "nothing is different");
    assert_eq!(some("name", Op::NotIn, &["Zug".into(), Cell::Null]).await, "ad");
    assert_eq!(some("name", Op::Prefix, &["Z".into()]).await, "ab");
    assert_eq!(some("name", Op::Contains, &["ZÜ".into()]).await, "a", "letter case aside");
    assert_eq!(some("name", Op::Contains, &["AR".into()]).await, "d");
    assert_eq!(some("size", Op::Less, &[2.into()]).await, "bc", "nothing is not less");
    assert_eq!(some("size", Op::Greater, &["1".into()]).await, "a", "text reads as a number");
    assert_eq!(some("gone", Op::In, &["true".into()]).await, "d");
    assert_eq!(some("size", Op::In, &[]).await, "");

    let count = |bound| {
        let query = Query { filters: vec![s1()], ..Query::all() };
        let views = server.views.clone();
        async move { views.count("things", &query, bound).await.unwrap() }
    };
    assert_eq!((count(100).await, count(2).await), (3, 2));
}

/// See the name.
pub async fn unknown_columns_and_views_say_which_there_are<F: Fixture>(fixture: &F) {
    let server = serve(fixture, &Arc::new(MemoryLog::new(1)), VIEWS).await;
    server.reach(0).await;
    let fault = async |view: &str, query: Query| match server.views.list(view, &query).await {
        Err(ViewFault::Query(text)) => text,
        other => panic!("{other:?}"),
    };
    let text = fault("thing", Query::all()).await;
    assert!(text.contains("counts, things, worded"), "{text}");
    let text = fault("things", Query::all().with("colour", "red")).await;
    assert!(text.contains("colour") && text.contains("sort, name, word, size"), "{text}");
    let text = fault("things", Query { order: vec![by("key; --", false)], ..Query::all() }).await;
    assert!(text.contains("sort, name"), "{text}");
    let text = fault("things", Query::all().with("size", "many")).await;
    assert!(text.contains("whole number"), "{text}");
    let text = fault("things", Query { limit: 0, ..Query::all() }).await;
    assert!(text.contains("1…1000"), "{text}");
    let scoped = Query { reach: Reach::Projects(vec![]), ..Query::all() };
    let text = fault("counts", scoped).await;
    assert!(text.contains("belongs to no project"), "{text}");
}

/// See the name.
pub async fn body_filters_look_into_tags_and_state<F: Fixture>(fixture: &F) {
    let log = Arc::new(MemoryLog::new(1));
    let state = |value: serde_json::Value| Thing {
        state: [("memory".to_owned(), value)].into(),
        ..thing("s1", "n")
    };
    log.put_thing("a", &tagged(thing("s1", "n"), "team.eu", "blue \"x\""));
    log.put_thing("b", &tagged(thing("s1", "n"), "team.eu", "Red\u{0}"));
    log.put_thing("c", &state(json!(2_048)));
    log.put_thing("d", &state(json!([{"size": true}, 7])));
    let head = log.put_thing("e", &state(json!(512)));
    let server = serve(fixture, &log, VIEWS).await;
    server.reach(head).await;
    let list = |column: &str, op, values: &[Cell]| {
        let query = Query { filters: vec![filter(column, op, values)], limit: 1, ..Query::all() };
        let server = &server;
        async move {
            let keys = server.keys("things", &query).await.concat();
            let count = server.views.count("things", &query, 100).await.unwrap();
            assert_eq!(count, keys.len() as u64);
            keys
        }
    };
    assert_eq!(list("tags.team.eu", Op::In, &["blue \"x\"".into()]).await, "a");
    assert_eq!(list("tags.team.eu", Op::In, &["Red\u{0}".into(), "no".into()]).await, "b");
    assert_eq!(list("tags.team.eu", Op::Contains, &["BLUE".into()]).await, "a");
    assert_eq!(list("tags.team.eu", Op::NotIn, &[Cell::Null]).await, "ab");
    assert_eq!(list("tags.x' OR 1=1 --", Op::NotIn, &[Cell::Null]).await, "");
    assert_eq!(list("state.memory", Op::In, &[2_048.into()]).await, "c");
    assert_eq!(list("state.memory", Op::Greater, &["600".into()]).await, "cd", "[ is after 6");
    assert_eq!(list("state.memory.0.size", Op::In, &["true".into()]).await, "d");
}

/// See the name.
pub async fn pages_stay_pinned_while_writes_go_on<F: Fixture>(fixture: &F) {
    let log = Arc::new(MemoryLog::new(1));
    for n in 0..30 {
        log.put_thing(&format!("t{n:02}"), &thing("s1", &format!("name {:02}", 29 - n)));
    }
    let server = serve(fixture, &log, VIEWS).await;
    server.reach(30).await;
    let mut query =
        Query { order: vec![by("name", false)], limit: 7, ..Query::all() }.with("sort", "s1");
    let whole = server.keys("things", &query).await;
    let mut keys = Vec::new();
    let mut n = 0;
    loop {
        let page = server.views.list("things", &query).await.unwrap();
        assert_eq!(page.position, 30);
        keys.extend(page.rows.into_iter().map(|row| row.key));
        let Some(token) = page.next else { break };
        let text = token.encode();
        query.token = commands::ports::PageToken::decode(&text);
        // Changed, removed, added: before and after the place the pages have come to.
        log.put_thing(&format!("t{n:02}"), &thing("s2", "aaa"));
        log.remove(&format!("t{:02}", 29 - n));
        let head = log.put_thing(&format!("new{n}"), &thing("s1", &format!("name {:02}", 2 * n)));
        server.reach(head).await;
        n += 1;
    }
    assert!(n >= 4);
    assert_eq!(keys, whole);
}

/// See the name.
pub async fn a_page_token_fits_only_its_own_query<F: Fixture>(fixture: &F) {
    let log = Arc::new(MemoryLog::new(1));
    for n in 0..3 {
        log.put_thing(&format!("t{n}"), &thing("s1", "n"));
    }
    let server = serve(fixture, &log, VIEWS).await;
    server.reach(3).await;
    let query = Query { limit: 1, ..Query::all() };
    let token = server.views.list("things", &query).await.unwrap().next;
    assert!(token.is_some());
    let with = |query: Query| Query { token: token.clone(), ..query };
    let reached = Query { reach: Reach::Projects(vec![Uuid::nil()]), ..query.clone() };
    for (view, other) in [
        ("things", with(query.clone().with("sort", "s1"))),
        ("things", with(Query { order: vec![by("name", false)], ..query.clone() })),
        ("things", with(Query { at: Some(2), ..query.clone() })),
        ("things", with(reached)),
        ("counts", with(query.clone())),
    ] {
        let answer = server.views.list(view, &other).await;
        assert!(matches!(answer, Err(ViewFault::Query(_))), "{other:?}: {answer:?}");
    }
}

/// See the name.
pub async fn lists_and_gets_at_a_past_position<F: Fixture>(fixture: &F) {
    let log = Arc::new(MemoryLog::new(1));
    log.put_thing("a", &thing("s1", "one"));
    log.put_thing("b", &thing("s1", "two"));
    log.put_thing("a", &thing("s1", "three"));
    log.remove("b");
    log.put_thing("b", &thing("s2", "four"));
    let server = serve(fixture, &log, VIEWS).await;
    server.reach(5).await;
    let names = async |at: Option<u64>| {
        let query = Query { order: vec![by("name", false)], limit: 1, at, ..Query::all() };
        let rows = server.rows("things", &query).await;
        let names: Vec<_> = rows.iter().map(|row| row.body["name"].as_str().unwrap()).collect();
        assert_eq!(server.views.count("things", &query, 9).await.unwrap(), rows.len() as u64);
        names.join(" ")
    };
    assert_eq!(names(Some(0)).await, "");
    assert_eq!(names(Some(1)).await, "one");
    assert_eq!(names(Some(2)).await, "one two");
    assert_eq!(names(Some(3)).await, "three two");
    assert_eq!(names(Some(4)).await, "three");
    assert_eq!(names(Some(5)).await, "four three");
    assert_eq!(names(None).await, "four three");

    let get = async |key: &str, at| {
        let row = server.views.get("things", key, at).await.unwrap();
        row.map(|row| (row.body["name"].as_str().unwrap().to_owned(), row.from, row.to))
    };
    assert_eq!(get("a", Some(2)).await, Some(("one".to_owned(), 1, Some(3))));
    assert_eq!(get("a", None).await, Some(("three".to_owned(), 3, None)));
    assert_eq!(get("b", Some(4)).await, None);
    assert_eq!(get("b", Some(1)).await, None);
    assert_eq!(get("c", None).await, None);
    let early = server.views.get("things", "a", Some(6)).await;
    assert!(matches!(early, Err(ViewFault::Behind { position: 5, wanted: 6 })), "{early:?}");
}

/// See the name.
pub async fn differences_are_found_by_key_between_two_positions<F: Fixture>(fixture: &F) {
    let (mine, other) = (Uuid::from_u128(7), Uuid::from_u128(8));
    let owned = |name: &str, project| Thing { project: Some(project), ..thing("s1", name) };
    let log = Arc::new(MemoryLog::new(1));
    log.put_thing("changed", &owned("1", mine));
    log.put_thing("back", &owned("1", mine));
    log.put_thing("gone", &owned("1", mine));
    log.put_thing("moved", &owned("1", mine));
    let from = log.put_thing("same", &owned("1", mine));
    log.put_thing("changed", &owned("2", mine));
    log.put_thing("changed", &owned("3", mine));
    log.put_thing("back", &owned("2", mine));
    log.put_thing("back", &owned("1", mine));
    log.remove("gone");
    log.put_thing("moved", &owned("2", other));
    let to = log.put_thing("new", &owned("1", other));
    let after = log.put_thing("same", &owned("9", mine));
    let server = serve(fixture, &log, VIEWS).await;
    server.reach(after).await;

    let diff = async |from, to, mut query: Query| {
        query.limit = 1;
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let found = server.views.diff("things", from, to, &query, after.as_deref()).await;
            let found = found.unwrap();
            let name = |side: &Option<serde_json::Value>| match side {
                Some(body) => body["name"].as_str().unwrap().to_owned(),
                None => "-".to_owned(),
            };
            for change in &found.changes {
                all.push(format!(
                    "{} {} {}",
                    change.key,
                    name(&change.before),
                    name(&change.after)
                ));
            }
            after = found.next;
            if after.is_none() {
                return all.join(", ");
            }
        }
    };
    assert_eq!(diff(from, to, Query::all()).await, "changed 1 3, gone 1 -, moved 1 2, new - 1");
    assert_eq!(diff(to, from, Query::all()).await, "changed 3 1, gone - 1, moved 2 1, new 1 -");
    assert_eq!(diff(to, to, Query::all()).await, "");
    let scoped = Query { reach: Reach::Projects(vec![mine]), ..Query::all() };
    assert_eq!(diff(from, to, scoped.clone()).await, "changed 1 3, gone 1 -, moved 1 -");
    let named =
        |name| Query { filters: vec![filter("name", Op::In, &[Cell::from(name)])], ..Query::all() };
    assert_eq!(diff(from, to, named("3")).await, "changed 1 3");
    let hidden = Query { reach: scoped.reach.clone(), ..named("2") };
    assert_eq!(diff(from, to, hidden).await, "", "what is out of reach does not even match");
}

/// See the name.
pub async fn a_lens_shows_some_rows_another_way<F: Fixture>(fixture: &F) {
    let word = |word: &str, sort| Thing { word: Some(word.to_owned()), ..thing(sort, "n") };
    let log = Arc::new(MemoryLog::new(1));
    log.put_thing("a", &word("x", "s1"));
    log.put_thing("b", &thing("s1", "n"));
    log.put_thing("c", &word("y", "s2"));
    log.put_thing("d", &word("z", "s1"));
    let head = log.put_thing("a", &thing("s1", "n"));
    let server = serve(fixture, &log, VIEWS).await;
    server.reach(head).await;
    let lens = LENSES[0].name;
    let at = Query { at: Some(4), ..Query::all() };
    let bodies = async |query: &Query| {
        server.rows(lens, query).await.into_iter().map(|row| row.body).collect::<Vec<_>>()
    };
    assert_eq!(bodies(&Query::all()).await, [json!({"word": "z"})]);
    assert_eq!(bodies(&at).await, [json!({"word": "x"}), json!({"word": "z"})]);
    assert_eq!(server.views.count(lens, &at, 10).await.unwrap(), 2);
    let get = async |key, at| server.views.get(lens, key, at).await.unwrap().map(|row| row.body);
    assert_eq!(get("a", None).await, None);
    assert_eq!(get("a", Some(4)).await, Some(json!({"word": "x"})));
    let diff = server.views.diff(lens, 4, 5, &Query::all(), None).await.unwrap().changes;
    assert_eq!(diff.len(), 1);
    assert_eq!((&diff[0].before, &diff[0].after), (&Some(json!({"word": "x"})), &None));
}

/// See the name.
pub async fn a_scoped_reader_reaches_only_its_projects<F: Fixture>(fixture: &F) {
    let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let of = |project| Thing { project, ..thing("s1", "n") };
    let log = Arc::new(MemoryLog::new(1));
    log.put_thing("a", &of(Some(one)));
    log.put_thing("b", &of(Some(two)));
    log.put_thing("c", &of(None));
    let head = log.put_thing("a", &of(Some(two)));
    let server = serve(fixture, &log, VIEWS).await;
    server.reach(head).await;
    let keys = async |projects: &[Uuid], at| {
        let reach = Reach::Projects(projects.to_vec());
        let query = Query { reach, at, ..Query::all() };
        let keys = server.keys("things", &query).await.concat();
        assert_eq!(server.views.count("things", &query, 9).await.unwrap(), keys.len() as u64);
        keys
    };
    assert_eq!(keys(&[one], None).await, "");
    assert_eq!(keys(&[one], Some(3)).await, "a", "as it was then");
    assert_eq!(keys(&[two], None).await, "ab");
    assert_eq!(keys(&[one, two], Some(3)).await, "ab");
    assert_eq!(keys(&[], None).await, "");
    let agent = Query { reach: Reach::Host(one), ..Query::all() };
    assert_eq!(server.keys("things", &agent).await.concat(), "");
}

/// See the name.
pub async fn positions_not_yet_reached_are_behind<F: Fixture>(fixture: &F) {
    let log = Arc::new(MemoryLog::new(1));
    let server = serve(fixture, &log, VIEWS).await;
    server.reach(0).await;
    let at = Query { at: Some(1), ..Query::all() };
    let early = server.views.list("things", &at).await;
    assert!(matches!(early, Err(ViewFault::Behind { position: 0, wanted: 1 })), "{early:?}");
    let early = server.views.reach_position(1, Duration::from_millis(10)).await;
    assert!(matches!(early, Err(ViewFault::Behind { position: 0, wanted: 1 })), "{early:?}");
    let waiting = {
        let views = server.views.clone();
        tokio::spawn(async move { views.reach_position(1, super::PATIENCE).await })
    };
    log.put_thing("a", &thing("s1", "n"));
    waiting.await.unwrap().unwrap();
    assert_eq!(server.keys("things", &at).await, ["a"]);
    assert_eq!(server.views.position("things").await.unwrap(), 1);
}
