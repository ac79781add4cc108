//! Lists compared with the simplest code that could be right: all rows in memory, filtered and
//! sorted.

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

use commands::ports::{Cell, Filter, Op, Order, Query};
use domain::{kernel::Reach, log::Position};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use uuid::Uuid;

use super::{Fixture, MemoryLog, Server, THINGS, Thing, VIEWS, serve};
use projections::view::{RowState, Value, View};

/// Records in the log, and lists compared.
const RECORDS: usize = 250;
const QUERIES: u32 = 250;

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "",
            "a",
            "A",
            "ab",
            "aB",
            "b",
            "é",
            "É",
            "e\u{301}",
            "ß",
            "SS",
            "Ω",
            "ω",
            "日本",
            "日",
            "\u{10ffff}",
            "\u{ffff}",
            "\u{d7ff}x",
            "a\u{0}b",
            "%",
            "_",
            "'",
            "\"",
            "\\",
            "K",
            "\u{212a}",
            "İ",
            "i",
            "true",
            "1",
            "null",
        ])
        .prop_map(str::to_owned),
        "[a-cÄ-Öσ]{0,3}",
    ]
}

fn word() -> impl Strategy<Value = Option<String>> {
    prop::option::of(prop::sample::select(vec!["x".to_owned(), "y".to_owned(), "Ÿ".to_owned()]))
}

fn project() -> impl Strategy<Value = Option<Uuid>> {
    prop::option::of((1_u128..4).prop_map(Uuid::from_u128))
}

fn thing() -> impl Strategy<Value = Thing> {
    (
        prop::sample::select(vec!["s0", "s1", "s2"]),
        prop::option::of(text()),
        word(),
        prop::option::of(prop_oneof![-2_i64..3, Just(i64::MIN), Just(i64::MAX)]),
        any::<bool>(),
        project(),
        prop::option::of(text()),
    )
        .prop_map(|(sort, name, word, size, gone, project, tag)| Thing {
            sort: sort.to_owned(),
            name,
            word,
            size,
            gone,
            project,
            state: size.map(|size| ("size".to_owned(), size.into())).into_iter().collect(),
            tags: tag.map(|tag| ("tag".to_owned(), tag)).into_iter().collect(),
        })
}

fn record() -> impl Strategy<Value = (String, Option<Thing>)> {
    let id = (0_u32..60).prop_map(|n| if n % 5 == 0 { format!("é{n}") } else { format!("t{n}") });
    (id, prop::option::weighted(0.9, thing()))
}

fn filter() -> impl Strategy<Value = Filter> {
    let texts = || prop::collection::vec(prop::option::weighted(0.9, text()), 0..3);
    let cells = |texts: Vec<Option<String>>| texts.into_iter().map(Cell::from).collect::<Vec<_>>();
    let many = || prop::sample::select(vec![Op::In, Op::NotIn]);
    let one = || prop::sample::select(vec![Op::Less, Op::Greater, Op::Prefix, Op::Contains]);
    let of =
        |column: &'static str| move |(op, values)| Filter { column: column.to_owned(), op, values };
    let text_column = || prop::sample::select(vec!["name", "word", "sort", "tags.tag"]);
    prop_oneof![
        4 => (Just(Op::In), prop::sample::select(vec!["s0", "s1"]).prop_map(|s| vec![s.into()]))
            .prop_map(of("sort")),
        2 => (Just(Op::In), any::<bool>().prop_map(|yes| vec![yes.into()])).prop_map(of("gone")),
        2 => (Just(Op::In), word().prop_map(|word| vec![word.into()])).prop_map(of("word")),
        3 => (text_column(), many(), texts().prop_map(cells)).prop_map(move |(c, o, v)| of(c)((o, v))),
        3 => (text_column(), one(), text().prop_map(|text| vec![text.into()]))
            .prop_map(move |(c, o, v)| of(c)((o, v))),
        2 => (
            prop::sample::select(vec!["size", "state.size"]),
            prop::sample::select(vec![Op::In, Op::NotIn, Op::Less, Op::Greater]),
            (-2_i64..3).prop_map(|size| vec![size.into()])
        )
            .prop_map(move |(c, o, v)| of(c)((o, v))),
    ]
}

fn query(head: Position) -> impl Strategy<Value = Query> {
    let column = prop::sample::select(vec!["sort", "name", "word", "size", "gone", "project"]);
    let order = (column, any::<bool>())
        .prop_map(|(column, descending)| Order { column: column.to_owned(), descending });
    let reach = prop_oneof![
        3 => Just(Reach::All),
        1 => prop::collection::vec((1_u128..4).prop_map(Uuid::from_u128), 0..3)
            .prop_map(Reach::Projects),
    ];
    (
        prop::collection::vec(filter(), 0..4),
        prop::collection::vec(order, 0..3),
        1_usize..20,
        prop::option::of(0..=head),
        reach,
    )
        .prop_map(|(filters, order, limit, at, reach)| Query {
            filters,
            order,
            limit,
            token: None,
            at,
            reach,
        })
}

/// Rows as they are at a position.
fn rows_at(records: &[(String, Option<Thing>)], at: Position) -> BTreeMap<&str, &Thing> {
    let mut rows = BTreeMap::new();
    for (id, thing) in &records[..at as usize] {
        match thing {
            Some(thing) => rows.insert(id.as_str(), thing),
            None => rows.remove(id.as_str()),
        };
    }
    rows
}

fn place(column: &str) -> usize {
    THINGS.columns().iter().position(|other| other.name == column).expect("it is a column")
}

/// NUL is stored as U+FFFD.
fn stored(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn stored_value(value: &Value) -> Value {
    match value {
        Value::Text(text) => Value::Text(stored(text)),
        other => other.clone(),
    }
}

/// The meaning of each operator, column by column.
fn meets(thing: &Thing, filter: &Filter) -> bool {
    let value = match filter.column.as_str() {
        "tags.tag" => thing.tags.get("tag").cloned().into(),
        "state.size" => thing.size.map_or(Value::Null, Value::Integer),
        column => thing.columns()[place(column)].clone(),
    };
    let value = stored_value(&value);
    let values: Vec<Value> = filter
        .values
        .iter()
        .map(|cell| match cell {
            Cell::Null => Value::Null,
            Cell::Boolean(yes) => Value::Boolean(*yes),
            Cell::Integer(number) => Value::Integer(*number),
            Cell::Text(text) => Value::Text(stored(text)),
        })
        .collect();
    match filter.op {
        Op::In => values.contains(&value),
        Op::NotIn => !values.contains(&value),
        _ if value == Value::Null => false,
        // Where a tag and a value are both numbers they are compared as numbers.
        Op::Less | Op::Greater => {
            let number = |value: &Value| match value {
                Value::Text(text) if filter.column == "tags.tag" => text.parse::<i64>().ok(),
                _ => None,
            };
            let by = match (number(&value), number(&values[0])) {
                (Some(a), Some(b)) => a.cmp(&b),
                _ => value.cmp(&values[0]),
            };
            by == if filter.op == Op::Less { Ordering::Less } else { Ordering::Greater }
        }
        Op::Prefix | Op::Contains => match (&value, &values[0]) {
            (Value::Text(text), Value::Text(part)) if filter.op == Op::Prefix => {
                text.starts_with(part.as_str())
            }
            (Value::Text(text), Value::Text(part)) => lower(text).contains(&lower(part)),
            _ => false,
        },
    }
}

fn lower(text: &str) -> String {
    text.chars()
        .flat_map(|c| match c {
            // Their small letters are ASCII, or begin with it.
            '\u{212a}' | 'İ' => vec![c],
            other => other.to_lowercase().collect(),
        })
        .collect()
}

fn naive(records: &[(String, Option<Thing>)], head: Position, query: &Query) -> Vec<String> {
    let mut rows: Vec<(&str, &Thing)> = rows_at(records, query.at.unwrap_or(head))
        .into_iter()
        .filter(|(_, thing)| query.reach.covers(thing.project))
        .filter(|(_, thing)| query.filters.iter().all(|filter| meets(thing, filter)))
        .collect();
    rows.sort_by(|(a_key, a), (b_key, b)| {
        for by in &query.order {
            let value = |thing: &Thing| stored_value(&thing.columns()[place(&by.column)]);
            let order = value(a).cmp(&value(b));
            let order = if by.descending { order.reverse() } else { order };
            if order.is_ne() {
                return order;
            }
        }
        a_key.cmp(b_key)
    });
    rows.into_iter().map(|(key, _)| key.to_owned()).collect()
}

/// Random rows and queries: every page of every list is what the naive code says, now and at every
/// past position, and so are the counts. A failure prints the smallest query it finds.
pub fn lists_agree_with_a_naive_filter_and_sort<F: Fixture>(fixture: impl FnOnce() -> F) {
    let config = Config { cases: QUERIES, failure_persistence: None, ..Config::default() };
    let seed = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(config, seed);
    let records = prop::collection::vec(record(), RECORDS)
        .new_tree(&mut runner)
        .expect("records can be made")
        .current();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("there is a runtime");
    let log = Arc::new(MemoryLog::new(1));
    for (id, thing) in &records {
        match thing {
            Some(thing) => log.put_thing(id, thing),
            None => log.remove(id),
        };
    }
    let head = records.len() as Position;
    let _entered = runtime.enter();
    let fixture = fixture();
    let server: Server<F::Store> = runtime.block_on(async {
        let server = serve(&fixture, &log, VIEWS).await;
        server.reach(head).await;
        server
    });
    let outcome = runner.run(&query(head), |query| {
        let expected = naive(&records, head, &query);
        runtime.block_on(async {
            let keys = server.keys("things", &query).await;
            prop_assert_eq!(&keys, &expected);
            let count = server.views.inner.count("things", &query, 1_000).await.expect("it fits");
            prop_assert_eq!(count, expected.len() as u64);
            Ok(())
        })
    });
    runtime.block_on(server.running.stop());
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
