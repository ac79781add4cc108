//! ClickHouse beside the lake: the same question of the same lines has the same answer, to the last
//! digit, whatever happens to the copy.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{sync::Arc, thread};

use adapters_clickhouse::{ClickHouse, Options};
use adapters_lake::Lake;
use clickhouse::{Client, Compression};
use commands::ports::{BillFault, BillStore, Cell, CostQuery, Filter, Op};
use domain::finops::{
    amount::{Amount, Currency},
    bill::Segment,
    cost::{Basis, Dimension, Table},
    line::{ChargeCategory, Line},
};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Texts that a dialect may stumble over.
const TEXTS: [&str; 12] = [
    "",
    "a",
    "b",
    "O'Brien",
    "back\\slash\\",
    "what? ?? ?fields",
    "`name`",
    "Straße ÄÖ \u{130}",
    "true",
    "7",
    "tab\tline\nnul\0",
    "\u{1f4b6}",
];
const KEYS: [&str; 4] = ["env", "team's", "?", "a.b"];

struct Both {
    clickhouse: ClickHouse,
    lake: Arc<Lake>,
    client: Client,
    options: Options,
    runtime: Runtime,
    _folder: TempDir,
}

impl Both {
    /// A lake that is empty, and so is the database.
    fn new(database: &str) -> Self {
        let server = std::env::var("SKYLEDGER_TEST_CLICKHOUSE")
            .expect("SKYLEDGER_TEST_CLICKHOUSE is not set: run the tests with ./test");
        let runtime = Runtime::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let lake = Arc::new(Lake::open(folder.path()).unwrap());
        let client = Client::default().with_url(&server).with_compression(Compression::None);
        let drop = client.query("DROP DATABASE IF EXISTS ?");
        let drop = drop.bind(clickhouse::sql::Identifier(database)).execute();
        runtime.block_on(drop).unwrap();
        let options = Options {
            url: format!("{server}/{database}"),
            password: None,
            tags: vec!["env".to_owned(), "team's".to_owned()],
        };
        let clickhouse = runtime.block_on(ClickHouse::open(&options, lake.clone())).unwrap();
        Self { clickhouse, lake, client, options, runtime, _folder: folder }
    }

    fn segments(&self, lines: Vec<Line>) -> Vec<Segment> {
        let parts = self.lake.write(&mut lines.into_iter()).unwrap();
        let segment = |part: commands::ports::Part| Segment {
            digest: part.digest,
            lines: part.lines,
            sums: part.sums,
            source: "test".to_owned(),
            source_digest: String::new(),
            findings: [].into(),
            quarantined: 0,
            invoices: None,
            imported_by: "test".to_owned(),
        };
        parts.into_iter().map(segment).collect()
    }

    fn run(&self, statement: &str) {
        self.runtime.block_on(self.client.query(statement).execute()).unwrap();
    }

    #[track_caller]
    fn agree(&self, segments: &[&Segment], asked: &CostQuery) -> Table {
        let expected = self.lake.sums(segments, asked).unwrap();
        let found = self.clickhouse.sums(segments, asked).unwrap();
        assert_eq!(found, expected, "{asked:?}");
        found
    }
}

fn line(account: &str, month: &str, billed: i128) -> Line {
    let currency = Currency::try_from("EUR".to_owned()).unwrap();
    let mut line = Line::new(account, month.parse().unwrap(), currency);
    line.billed = Amount(billed);
    line
}

fn any_text() -> impl Strategy<Value = String> {
    proptest::sample::select(&TEXTS[..]).prop_map(str::to_owned)
}

fn any_amount() -> impl Strategy<Value = Amount> {
    let units = prop_oneof![Just(0), -1_000_i128..1_000, -(10_i128.pow(30))..10_i128.pow(30)];
    units.prop_map(Amount)
}

fn any_line() -> impl Strategy<Value = Line> {
    let texts = proptest::collection::vec(any_text(), 10);
    let amounts = proptest::collection::vec(any_amount(), 4);
    let tags = proptest::collection::btree_map(
        proptest::sample::select(&KEYS[..]).prop_map(str::to_owned),
        any_text(),
        0..4,
    );
    let quantity = proptest::sample::select(&["", "1.5", "-2", "1e-13", "1e60", "odd"][..]);
    let currency = proptest::sample::select(&["EUR", "USD", "CREDITS_2"][..]);
    (texts, amounts, tags, quantity, currency, 0..5_usize, 0..40_i64).prop_map(
        |(texts, amounts, tags, quantity, currency, category, day)| {
            let month = "2024-02".parse().unwrap();
            let mut line = Line::new("1", month, Currency::try_from(currency.to_owned()).unwrap());
            line.from -= chrono::TimeDelta::hours(day * 7);
            line.category = ChargeCategory::ALL[category];
            [line.billed, line.effective, line.list, line.contracted] = amounts.try_into().unwrap();
            let slots = [
                &mut line.sub_account,
                &mut line.service,
                &mut line.service_category,
                &mut line.region,
                &mut line.resource,
                &mut line.resource_name,
                &mut line.billing_mode,
                &mut line.invoice,
                &mut line.sku,
                &mut line.unit,
            ];
            for (slot, text) in slots.into_iter().zip(texts) {
                *slot = text;
            }
            line.quantity = quantity.to_owned();
            line.tags = tags;
            line
        },
    )
}

fn any_dimension() -> impl Strategy<Value = Dimension> {
    let plain = proptest::sample::select(&Dimension::PLAIN[..]).prop_map(Dimension::Plain);
    let tag = proptest::sample::select(&KEYS[..]).prop_map(|key| Dimension::Tag(key.to_owned()));
    prop_oneof![3 => plain, 1 => tag]
}

fn any_filter() -> impl Strategy<Value = (Dimension, Filter)> {
    const OPS: [Op; 6] = [Op::In, Op::NotIn, Op::Less, Op::Greater, Op::Prefix, Op::Contains];
    let cell = prop_oneof![
        Just(Cell::Null),
        any::<bool>().prop_map(Cell::Boolean),
        (5_i64..9).prop_map(Cell::Integer),
        any_text().prop_map(Cell::Text),
        proptest::sample::select(&["2024", "2024-01-3", "U", "st", "i\u{307}", "Q1"][..])
            .prop_map(|text| Cell::Text(text.to_owned())),
    ];
    let values = proptest::collection::vec(cell, 0..4);
    (any_dimension(), proptest::sample::select(&OPS[..]), values).prop_map(
        |(dimension, op, values)| (dimension, Filter { column: "any".to_owned(), op, values }),
    )
}

fn any_question() -> impl Strategy<Value = CostQuery> {
    let groups = proptest::collection::vec(any_dimension(), 0..5);
    let filters = proptest::collection::vec(any_filter(), 0..3);
    (proptest::sample::select(&Basis::ALL[..]), groups, filters)
        .prop_map(|(basis, groups, filters)| CostQuery { basis, groups, filters, alike: None })
}

#[test]
fn any_question_of_any_lines_has_the_answer_of_the_lake() {
    let both = Both::new("same_answers");
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        proptest::test_runner::TestRng::deterministic_rng(
            proptest::test_runner::RngAlgorithm::ChaCha,
        ),
    );
    let mut segments = Vec::new();
    for size in [1, 40, 3_000, 500] {
        let lines = proptest::collection::vec(any_line(), size);
        segments.extend(both.segments(lines.new_tree(&mut runner).unwrap().current()));
    }
    let all: Vec<&Segment> = segments.iter().collect();
    let (mut empty, mut full) = (0, 0);
    for turn in 0..120 {
        let asked = any_question().new_tree(&mut runner).unwrap().current();
        let some = if turn % 4 == 0 { &all[1..2] } else { &all[..] };
        let found = both.agree(some, &asked);
        if found.iter().next().is_some() { full += 1 } else { empty += 1 }
    }
    assert!(full > 50 && empty > 10, "questions find something, or nothing: {full}, {empty}");
}

#[test]
fn a_restatement_names_other_segments_and_a_month_without_lines_is_none() {
    let both = Both::new("restated");
    let before = both.segments(vec![line("1", "2026-10", 5), line("1", "2026-10", 6)]);
    let after = both.segments(vec![line("1", "2026-10", 7)]);
    let asked = CostQuery { groups: vec!["month".parse().unwrap()], ..CostQuery::default() };
    both.agree(&[&before[0]], &asked);
    both.agree(&[&after[0]], &asked);
    both.agree(&[&before[0], &after[0]], &asked);
    let empty = Segment {
        digest: both.lake.empty().unwrap(),
        lines: 0,
        sums: [].into(),
        ..after[0].clone()
    };
    both.agree(&[&empty, &after[0]], &asked);
    both.agree(&[&empty], &asked);
    both.agree(&[], &asked);
}

#[test]
fn a_copy_that_was_touched_is_made_again_and_counts_once() {
    let both = Both::new("touched");
    let segments = both.segments(vec![
        line("1", "2026-09", 5),
        line("1", "2026-10", 6),
        line("1", "2026-10", 7),
    ]);
    let all: Vec<&Segment> = segments.iter().collect();
    let asked = CostQuery { groups: vec!["month".parse().unwrap()], ..CostQuery::default() };
    both.agree(&all, &asked);
    for harm in [
        format!(
            "ALTER TABLE touched.bill_lines DROP PARTITION tuple('2026-10', '{}')",
            segments[1].digest
        ),
        "INSERT INTO touched.bill_lines SELECT * FROM touched.bill_lines LIMIT 1".to_owned(),
        "TRUNCATE TABLE touched.bill_lines".to_owned(),
    ] {
        both.run(&harm);
        both.agree(&all, &asked);
    }
    // An amount that was changed is seen by the next server that starts.
    both.run("CREATE TABLE touched.other AS touched.bill_lines");
    both.run(
        "INSERT INTO touched.other (segment, month, currency, number, billed) \
         SELECT segment, month, currency, number, billed + 1 FROM touched.bill_lines",
    );
    both.run(&format!(
        "ALTER TABLE touched.bill_lines REPLACE PARTITION tuple('2026-09', '{}') \
         FROM touched.other",
        segments[0].digest
    ));
    let started =
        both.runtime.block_on(ClickHouse::open(&both.options, both.lake.clone())).unwrap();
    assert_eq!(started.sums(&all, &asked).unwrap(), both.lake.sums(&all, &asked).unwrap());
}

#[test]
fn lines_that_do_not_come_to_what_was_said_are_damage_and_leave_nothing() {
    let both = Both::new("damaged");
    let segments = both.segments(vec![line("1", "2026-10", 6)]);
    let mut said = segments[0].clone();
    said.sums.values_mut().next().unwrap().billed = Amount(7);
    let asked = CostQuery::default();
    for _ in 0..2 {
        let fault = both.clickhouse.sums(&[&said], &asked).unwrap_err();
        assert!(matches!(fault, BillFault::Damaged { .. }), "{fault}");
    }
    let missing = Segment { digest: "0".repeat(64), ..segments[0].clone() };
    let fault = both.clickhouse.sums(&[&missing], &asked).unwrap_err();
    assert!(matches!(fault, BillFault::Damaged { .. }), "{fault}");
    let left = both.client.query("SELECT count() FROM system.tables WHERE database = 'damaged'");
    assert_eq!(both.runtime.block_on(left.fetch_one::<u64>()).unwrap(), 1);
    let lines = both.client.query("SELECT count() FROM damaged.bill_lines");
    assert_eq!(both.runtime.block_on(lines.fetch_one::<u64>()).unwrap(), 0);
}

#[test]
fn a_sum_beyond_an_amount_is_an_error_and_never_another_number() {
    let both = Both::new("large");
    let large = 10_i128.pow(38) - 1;
    let segments = both.segments(vec![line("1", "2026-09", large), line("1", "2026-10", large)]);
    let asked = CostQuery::default();
    both.agree(&[&segments[0]], &asked);
    let all: Vec<&Segment> = segments.iter().collect();
    let fault = both.clickhouse.sums(&all, &asked).unwrap_err();
    assert!(matches!(fault, BillFault::TooLarge(_)), "{fault}");
}

#[test]
fn several_servers_that_copy_the_same_segments_at_once_count_them_once() {
    let both = Both::new("at_once");
    let months = (1..=6)
        .flat_map(|month| (0..200).map(move |units| line("1", &format!("2026-{month:02}"), units)));
    let segments = both.segments(months.collect());
    let all: Vec<&Segment> = segments.iter().collect();
    let asked = CostQuery { groups: vec!["month".parse().unwrap()], ..CostQuery::default() };
    let expected = both.lake.sums(&all, &asked).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            let server =
                both.runtime.block_on(ClickHouse::open(&both.options, both.lake.clone())).unwrap();
            let (all, asked, expected) = (&all, &asked, &expected);
            scope.spawn(move || assert_eq!(&server.sums(all, asked).unwrap(), expected));
        }
    });
    both.agree(&all, &asked);
}

#[test]
fn an_engine_that_is_not_there_is_said_without_its_password() {
    let both = Both::new("absent");
    let open = |url: &str| {
        let options = Options {
            url: url.to_owned(),
            password: Some("not-to-be-seen".to_owned()),
            tags: vec![],
        };
        both.runtime.block_on(ClickHouse::open(&options, both.lake.clone())).err().unwrap()
    };
    let fault = open("http://someone@127.0.0.1:1/bills");
    assert!(fault.to_string().starts_with("ClickHouse: "), "{fault}");
    assert!(!format!("{fault} {fault:?}").contains("not-to-be-seen"), "{fault:?}");
    for url in ["bills", "ftp://127.0.0.1/bills", "http://127.0.0.1/a/b"] {
        assert!(open(url).to_string().contains("such as http://"), "{url}");
    }
}
