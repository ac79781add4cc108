//! A cube answers as the lines do, and one that is lost or damaged is made again.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

use chrono::{DateTime, TimeDelta};
use commands::ports::{
    BillFault, BillStore, Cell, CostQuery, Filter, Op, Part, origins_by_line, sums_by_line,
};
use domain::finops::{
    amount::{Amount, Currency},
    attribution::{Alike, Axis, Estate, Owned, Surroundings},
    bill::Segment,
    cost::{Basis, Dimension, Table},
    line::{ChargeCategory, Line},
    rules::Rules,
};
use proptest::{prelude::*, sample::select};
use tempfile::TempDir;

use super::{DIMENSIONS, Limits, Source};
use crate::{Lake, Options};

fn line(account: &str, month: &str) -> Line {
    Line::new(account, month.parse().unwrap(), Currency::try_from("EUR".to_owned()).unwrap())
}

fn segment(part: Part) -> Segment {
    Segment {
        digest: part.digest,
        lines: part.lines,
        sums: part.sums,
        source: String::new(),
        source_digest: String::new(),
        findings: BTreeMap::new(),
        quarantined: 0,
        imported_by: String::new(),
        invoices: part.invoices,
    }
}

/// A lake with these lines, and their segments.
fn lake(lines: &[Line], limits: Limits) -> (TempDir, Lake, Vec<Segment>) {
    let folder = tempfile::tempdir().unwrap();
    // So little is kept that most of a question's columns are read again.
    let mut lake =
        Lake::open_with(folder.path(), Options { cache_bytes: 20_000, ..Options::default() })
            .unwrap();
    Arc::get_mut(&mut lake.cubes).unwrap().limits = limits;
    let mut lines = lines.to_vec();
    lines.sort_by_key(|line| (line.billing_account.clone(), line.month));
    let parts = lake.write(&mut lines.into_iter()).unwrap();
    (folder, lake, parts.into_iter().map(segment).collect())
}

fn by_line(lake: &Lake, segments: &[&Segment], asked: &CostQuery) -> Result<Table, BillFault> {
    sums_by_line(&|digest| BillStore::lines(lake, digest), segments, asked)
}

fn filter(op: Op, values: Vec<Cell>) -> Filter {
    Filter { column: String::new(), op, values }
}

fn any_amount() -> impl Strategy<Value = Amount> {
    let amount = (any::<i64>(), 0..64_u32).prop_map(|(units, shift)| i128::from(units >> shift));
    let large = any::<i128>().prop_map(|units| units / 1_000);
    prop_oneof![9 => amount, 2 => (0..5_i128).prop_map(|whole| whole * 10_i128.pow(12)), 1 => large]
        .prop_map(Amount)
}

const WORDS: [&str; 7] = ["", "a", "b", "Ä", "ab", "true", "7"];
const KEYS: [&str; 5] = ["env", "team", "app", "owner", "x"];

prop_compose! {
    fn any_line()(
        words in prop::array::uniform17(select(&WORDS[..])),
        tags in prop::collection::btree_map(
            select(&KEYS[..]).prop_map(str::to_owned), select(&WORDS[..]).prop_map(str::to_owned), 0..5,
        ),
        amounts in prop::array::uniform4(any_amount()),
        quantity in select(&["", "1", "2.5", "-0.0000000000005", "1e99", "x"][..]),
        (account, month, currency) in (
            select(&["1", "2"][..]), select(&["2026-01", "2026-09", "2027-12"][..]),
            select(&["EUR", "USD", "CREDITS"][..]),
        ),
        category in select(&ChargeCategory::ALL[..]),
        hours in 0..100_i64,
    ) -> Line {
        let mut line = line(account, month);
        line.currency = Currency::try_from(currency.to_owned()).unwrap();
        [line.billed, line.effective, line.list, line.contracted] = amounts;
        let mut words = words.into_iter().map(str::to_owned);
        for text in [
            &mut line.sub_account, &mut line.service, &mut line.service_category, &mut line.region,
            &mut line.resource, &mut line.resource_name, &mut line.resource_type,
            &mut line.billing_mode, &mut line.commitment, &mut line.commitment_status,
            &mut line.invoice, &mut line.issuer, &mut line.sku, &mut line.unit,
        ] {
            *text = words.next().unwrap();
        }
        (line.tags, line.quantity, line.category) = (tags, quantity.to_owned(), category);
        line.from += TimeDelta::hours(hours);
        line
    }
}

fn any_dimension() -> impl Strategy<Value = Dimension> {
    prop_oneof![
        select(&Dimension::PLAIN[..]).prop_map(Dimension::Plain),
        select([&KEYS[..], &["none"]].concat()).prop_map(|key| Dimension::Tag(key.to_owned())),
    ]
}

fn any_filter() -> impl Strategy<Value = Filter> {
    let cell = prop_oneof![
        Just(Cell::Null),
        any::<bool>().prop_map(Cell::Boolean),
        Just(Cell::Integer(7)),
        select([&WORDS[..], &["EUR", "2026-01", "2026-Q3", "Usage", "1"]].concat())
            .prop_map(|word| Cell::Text(word.to_owned())),
    ];
    let op = select(vec![Op::In, Op::NotIn, Op::Less, Op::Greater, Op::Prefix, Op::Contains]);
    (op, prop::collection::vec(cell, 0..4)).prop_map(|(op, values)| filter(op, values))
}

/// Resources of which two are alike, and some are not known.
fn alike_words() -> Alike {
    let owned =
        |env: &str| Owned { tags: [("env".to_owned(), env.to_owned())].into(), ..Owned::default() };
    let resources = [("a", owned("x")), ("b", owned("x")), ("Ä", owned("y"))];
    let resources = resources.map(|(resource, owned)| (resource.to_owned(), owned)).into();
    let now = Arc::new(Estate { resources, ..Estate::default() });
    let around = Surroundings { now, ..Surroundings::default() };
    let rules = Rules::default();
    let axes = [Axis::ResourceTag("env".to_owned())];
    around.alike(&rules.placing().unwrap(), &axes).unwrap()
}

prop_compose! {
    fn any_question()(
        basis in select(&Basis::ALL[..]),
        groups in prop_oneof![
            4 => prop::collection::vec(any_dimension(), 0..5),
            // So many that no key holds them all.
            1 => prop::collection::vec(any_dimension(), 30..60),
        ],
        filters in prop::collection::vec((any_dimension(), any_filter()), 0..3),
        alike in any::<bool>(),
    ) -> CostQuery {
        CostQuery { basis, groups, filters, alike: alike.then(|| Arc::new(alike_words())) }
    }
}

prop_compose! {
    fn any_limits()(
        chunk_rows in 1..20_u32, slab_rows in 1..60_u32, slab_texts in select(vec![0, 1 << 20]),
        promoted in 0..5_usize,
    ) -> Limits {
        Limits { chunk_rows, slab_rows, slab_texts, promoted }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_cube_answers_as_the_lines_do(
        lines in prop::collection::vec(any_line(), 0..120),
        limits in any_limits(),
        questions in prop::collection::vec(any_question(), 1..8),
    ) {
        let (_folder, lake, segments) = lake(&lines, limits);
        let segments: Vec<_> = segments.iter().collect();
        for asked in &questions {
            let expected = by_line(&lake, &segments, asked).unwrap();
            prop_assert_eq!(lake.sums(&segments, asked).unwrap(), expected, "{:?}", asked);
        }
    }

    #[test]
    fn a_cube_names_the_lines_that_a_number_is_made_of(
        lines in prop::collection::vec(any_line(), 0..120),
        limits in any_limits(),
        asked in any_question(),
        most in 0..20_usize,
        word in prop::option::of(select(&WORDS[..])),
    ) {
        let (_folder, lake, segments) = lake(&lines, limits);
        let segments: Vec<_> = segments.iter().collect();
        let wanted = |group: &[&str]| word.is_none_or(|word| group.contains(&word));
        let tell = |digest: &str| BillStore::lines(&lake, digest);
        let expected = origins_by_line(&tell, &segments, &asked, &wanted, most).unwrap();
        prop_assert_eq!(lake.origins(&segments, &asked, &wanted, most).unwrap(), expected);
    }
}

#[test]
fn every_dimension_has_a_column_of_its_own() {
    assert_eq!(DIMENSIONS.each_ref().map(|(name, _)| *name), Dimension::PLAIN);
    let mut line = line("account", "2026-10");
    line.category = ChargeCategory::Credit;
    for text in [
        (&mut line.sub_account, "sub"),
        (&mut line.service, "service"),
        (&mut line.service_category, "category"),
        (&mut line.region, "region"),
        (&mut line.resource, "resource"),
        (&mut line.resource_name, "name"),
        (&mut line.resource_type, "type"),
        (&mut line.billing_mode, "mode"),
        (&mut line.commitment, "commitment"),
        (&mut line.commitment_status, "status"),
        (&mut line.invoice, "invoice"),
        (&mut line.issuer, "issuer"),
        (&mut line.sku, "sku"),
        (&mut line.unit, "unit"),
    ] {
        *text.0 = text.1.to_owned();
    }
    for (name, source) in &DIMENSIONS {
        if let Source::Text(get) = source {
            assert_eq!(get(&line), Dimension::Plain(name).of(&line), "{name}");
        }
    }
}

/// Lines of one bill over some days, with many resources.
fn some_lines() -> Vec<Line> {
    let one = |n: i64| {
        let mut line = line("a", "2026-10");
        line.number = n as u64;
        line.from = DateTime::from_timestamp(1_790_000_000 + 3_600 * n, 0).unwrap();
        (line.billed, line.effective) = (Amount(n.pow(3).into()), Amount(-i128::from(n)));
        line.resource = format!("resource-{}", n * 7_919 % 1_009);
        line.tags.extend([("env".to_owned(), ["prod", "dev"][n as usize % 2].to_owned())]);
        line
    };
    (1..3_000).map(one).collect()
}

fn question(groups: &[&str]) -> CostQuery {
    let groups = groups.iter().map(|name| name.parse().unwrap()).collect();
    CostQuery { groups, ..CostQuery::default() }
}

#[test]
fn a_cube_that_is_lost_torn_or_damaged_is_made_again_and_never_a_wrong_sum() {
    let limits = Limits { chunk_rows: 500, slab_rows: 1_200, ..Limits::default() };
    let (_folder, lake, segments) = lake(&some_lines(), limits);
    let segments: Vec<_> = segments.iter().collect();
    let asked = question(&["resource", "tags.env", "day"]);
    let expected = by_line(&lake, &segments, &asked).unwrap();
    let path = lake.cube_path(&segments[0].digest).unwrap();
    let whole = fs::read(&path).unwrap();
    let seen = || {
        lake.cubes.forget(&segments[0].digest);
        assert_eq!(lake.sums(&segments, &asked).unwrap(), expected);
    };
    let replace = |bytes: &[u8]| {
        let part = path.with_extension("new");
        fs::write(&part, bytes).unwrap();
        fs::rename(part, &path).unwrap();
    };
    seen();
    assert_eq!(fs::read(&path).unwrap(), whole, "it was made when the segment was");
    fs::remove_file(&path).unwrap();
    seen();
    assert_eq!(fs::read(&path).unwrap(), whole, "the same lines make the same cube");
    for length in [0, 1, 15, 16, 100, whole.len() / 2, whole.len() - 1] {
        replace(&whole[..length]);
        seen();
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
    for at in (0..whole.len()).step_by(whole.len() / 60).chain(whole.len() - 20..whole.len()) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        replace(&damaged);
        seen();
    }
    // Of another segment, and whole.
    let mut other = some_lines();
    other.truncate(2_000);
    let parts = lake.write(&mut other.into_iter()).unwrap();
    fs::copy(lake.cube_path(&parts[0].digest).unwrap(), &path).unwrap();
    seen();
}

#[test]
fn a_segment_that_is_not_what_its_import_said_has_no_sum() {
    let (_folder, lake, segments) = lake(&some_lines(), Limits::default());
    let asked = question(&["day"]);
    let mut other = segments[0].clone();
    other.sums.values_mut().for_each(|sums| sums.billed.0 += 1);
    let damaged =
        |segment: &Segment| matches!(lake.sums(&[segment], &asked), Err(BillFault::Damaged { .. }));
    assert!(damaged(&other) && !damaged(&segments[0]));
    let path: PathBuf = lake.path(&segments[0].digest).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();
    assert!(damaged(&segments[0]), "its bytes are others");
    fs::remove_file(&path).unwrap();
    assert!(damaged(&segments[0]), "it is gone");
}

#[test]
fn what_is_in_memory_is_bounded_and_the_answer_the_same() {
    let lines = some_lines();
    let limits = Limits { chunk_rows: 500, slab_rows: 1_000, ..Limits::default() };
    let (_folder, small, segments) = lake(&lines, limits);
    let segments: Vec<_> = segments.iter().collect();
    let large = Lake::open(small.folder()).unwrap();
    for groups in [&["resource"][..], &["day"], &["resource", "day"], &["tags.env"]] {
        let asked = question(groups);
        assert_eq!(small.sums(&segments, &asked).unwrap(), large.sums(&segments, &asked).unwrap());
        assert!(small.cached_bytes() <= 20_000, "{}", small.cached_bytes());
    }
    assert!(large.cached_bytes() > 20_000, "{}", large.cached_bytes());
}

#[test]
fn a_sum_beyond_an_amount_is_an_error() {
    let lines = [5, 5].map(|digit| {
        let mut line = line("a", "2026-10");
        line.effective = Amount(digit * 10_i128.pow(37));
        line
    });
    let (_folder, lake, segments) = lake(&lines, Limits::default());
    let more: Vec<_> = segments.iter().chain(&segments).chain(&segments).collect();
    let asked = CostQuery { basis: Basis::Effective, ..CostQuery::default() };
    assert!(lake.sums(&more[..1], &asked).is_ok());
    // Each of the same segment's lines counts once more.
    assert!(matches!(lake.sums(&more, &asked), Err(BillFault::TooLarge(_))));
}
