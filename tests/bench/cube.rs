//! The cost cube beside DuckDB: the same bill, the same questions, the same sums, CPU time.
//!
//! The bill is made by a script that is not part of the repository: it writes `bill.parquet` and
//! `inventory.parquet` into a folder (`--bill-generator=FILE`, or `SKYLEDGER_BILL_GENERATOR`; it is
//! called with a number of lines and the folder). DuckDB comes from PyPI, into a folder of the
//! build (`SKYLEDGER_PYTHON` names a Python that has `duckdb`, `numpy` and `pyarrow` already). With
//! `--bill-folder=FOLDER` the bill is made there once and found by the next run.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use adapters_lake::{Lake, Options};
use commands::{
    allocate::allocate,
    attribute::{AxisQuery, Whose, attributed},
    bills::{Counting, costs, explain},
    ports::{BillStore, Cell, CostQuery, Filter, Op, Reading},
};
use domain::finops::{
    amount::Amount,
    attribution::{Estate, Owned, Surroundings},
    cost::{Basis, Dimension, Table},
    ratio::whole,
    split::split,
};
use serde::Deserialize;

use crate::support::{Size, counting, cpu_seconds, forget_peak, median, peak_mib, percentile};

/// Times that each question is asked.
const RUNS: usize = 7;
/// Lines that an explanation shows unless it is told otherwise.
const SHOWN: usize = 100;

/// What DuckDB said of a question.
#[derive(Deserialize)]
struct Reference {
    how: String,
    name: String,
    cpus: Vec<f64>,
    walls: Vec<f64>,
    rows: Vec<Vec<String>>,
}

/// Sums by what they are of, over all currencies.
type Answer = BTreeMap<Vec<String>, i128>;

fn argument(name: &str, variable: &str) -> Option<String> {
    let given = std::env::args().find_map(|one| Some(one.strip_prefix(name)?.to_owned()));
    given.or_else(|| std::env::var(variable).ok())
}

fn run_to_end(command: &mut Command) -> Vec<u8> {
    let output = command.stderr(Stdio::inherit()).output().expect("it starts");
    assert!(output.status.success(), "{command:?}");
    output.stdout
}

/// A Python that has what the other side needs.
fn python() -> PathBuf {
    if let Some(python) = argument("--python=", "SKYLEDGER_PYTHON") {
        return python.into();
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-python");
    let python = folder.join("bin/python");
    if !python.exists() {
        run_to_end(Command::new("python3").args(["-m", "venv"]).arg(&folder));
        let packages = ["install", "--quiet", "duckdb", "numpy", "pyarrow"];
        run_to_end(Command::new(folder.join("bin/pip")).args(packages));
    }
    python
}

fn dimension(name: &str) -> Dimension {
    name.parse().expect("a dimension")
}

fn filter(name: &str, op: Op, values: &[&str]) -> (Dimension, Filter) {
    let values = values.iter().map(|value| match *value {
        "" => Cell::Null,
        value => Cell::Text(value.to_owned()),
    });
    (dimension(name), Filter { column: name.to_owned(), op, values: values.collect() })
}

fn question(groups: &[&str], filters: Vec<(Dimension, Filter)>) -> CostQuery {
    let groups = groups.iter().map(|name| dimension(name)).collect();
    CostQuery { basis: Basis::Effective, groups, filters, alike: None }
}

fn answer(table: &Table, before: &[&str], into: &mut Answer) {
    for (group, _, sum) in table.iter() {
        let before = before.iter().map(|text| (*text).to_owned());
        *into.entry(before.chain(group.iter().cloned()).collect()).or_default() += sum.amount.0;
    }
}

/// Resources with what the inventory says of them, as tags.
fn inventory(folder: &Path) -> Surroundings {
    let mut file = csv::Reader::from_path(folder.join("inventory.csv")).expect("the inventory");
    let heading = file.headers().expect("a heading").clone();
    let mut resources = BTreeMap::new();
    for row in file.records() {
        let row = row.expect("a row");
        let mut fields = heading.iter().zip(&row);
        let id = fields.next().expect("an id").1.to_owned();
        let tags = fields.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        resources.insert(id, Owned { tags, ..Owned::default() });
    }
    let now = Arc::new(Estate { resources, ..Estate::default() });
    Surroundings { now, ..Surroundings::default() }
}

/// Rules that make each project of the bill a centre, and spread what is shared.
fn sharing() -> Whose {
    let rules = serde_json::from_value(serde_json::json!({
        "attribution": [
            {"name": "shared", "centre": "shared", "conditions":
                [{"dimension": "resource_type", "values": ["shared-platform"]}]},
            {"name": "projects", "conditions": [], "centre_of": "resource_type"},
        ],
        "shared": [{"name": "by cost", "pool": "shared",
                    "method": {"proportional": {"fallback": "even"}}}],
    }));
    Whose { rules: rules.expect("rules"), ..Whose::default() }
}

/// What we say, as it comes: with what stands before its groups.
type Said = Vec<(&'static str, Table)>;

/// One question of ours, by its number.
fn ask(lake: &Lake, counting: &Counting, whose: &Whose, number: u8) -> Said {
    let sums = |asked: CostQuery| costs(lake, counting, &asked).expect("costs");
    match number {
        b'1' => vec![("", sums(question(&["month", "resource_type", "tags.env"], vec![])))],
        b'2' => {
            let from = filter("day", Op::Greater, &["2026-07-31"]);
            let to = filter("day", Op::Less, &["2026-11-01"]);
            vec![("", sums(question(&["service"], vec![from, to])))]
        }
        b'3' => {
            let of = |key: &'static str| {
                let mut filters = vec![filter("charge_category", Op::In, &["Usage"])];
                if key != "all" {
                    filters.push(filter(&format!("tags.{key}"), Op::NotIn, &[""]));
                }
                (key, sums(question(&["issuer", "month"], filters)))
            };
            ["all", "project", "env", "team"].map(of).into()
        }
        b'4' => {
            let groups = ["month", "resource_tags.business_unit", "resource_tags.cost_center"];
            let groups = groups.map(|axis| axis.parse().expect("an axis")).into();
            let asked = AxisQuery { basis: Basis::Effective, groups, filters: vec![] };
            vec![("", attributed(lake, counting, whose, &asked).expect("costs"))]
        }
        b'5' => {
            let filters = vec![
                filter("tags.env", Op::In, &["prod"]),
                filter("tags.team", Op::In, &["team-07"]),
                filter("tags.app", Op::In, &["app-001", "app-010", "app-100"]),
            ];
            vec![("", sums(question(&["day"], filters)))]
        }
        _ => {
            let table = sums(question(&["month", "resource_type"], vec![]));
            shared(&table);
            vec![("", table)]
        }
    }
}

/// Spreads what is shared in each month over the projects, by what they have, to the last unit.
fn shared(table: &Table) {
    let mut months: BTreeMap<&str, (i128, BTreeMap<&str, i128>)> = BTreeMap::new();
    for (group, _, sum) in table.iter() {
        let (pool, own) = months.entry(&group[0]).or_default();
        match group[1].as_str() {
            "shared-platform" => *pool += sum.amount.0,
            project => *own.entry(project).or_default() += sum.amount.0,
        }
    }
    for (pool, own) in months.into_values() {
        let weights = own.into_iter().filter(|(_, sum)| *sum > 0);
        let weights = weights.map(|(project, sum)| (project.to_owned(), whole(sum))).collect();
        let parts = split(pool, &weights).expect("it is split");
        assert_eq!(parts.values().sum::<i128>(), pool);
    }
}

/// What DuckDB says, of what we said.
fn comparable(said: Said, number: u8) -> Answer {
    let mut all = Answer::new();
    for (before, table) in &said {
        let before: &[&str] = if before.is_empty() { &[] } else { &[before] };
        answer(table, before, &mut all);
    }
    match number {
        b'2' => {
            let mut services: Vec<_> = all.into_iter().collect();
            services.sort_by_key(|(name, sum)| (std::cmp::Reverse(*sum), name.clone()));
            services.truncate(20);
            return services.into_iter().collect();
        }
        b'4' => all.retain(|group, _| !group[1].is_empty()),
        b'6' => all.retain(|group, sum| group[1] != "shared-platform" && *sum > 0),
        _ => {}
    }
    all
}

struct Measured {
    cpu: f64,
    walls: Vec<Duration>,
    answer: Answer,
}

/// CPU seconds of a question, and how long it took each time.
fn measure(ask: impl Fn() -> Said, number: u8) -> Measured {
    let answer = comparable(ask(), number);
    let (mut walls, mut cpus) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        // A clock that ticks a hundred times a second: a question is asked until it has ticked
        // often enough.
        let (before, mut times) = (cpu_seconds(), 0.0);
        while cpu_seconds() - before < 0.2 {
            let start = Instant::now();
            std::hint::black_box(ask());
            walls.push(start.elapsed());
            times += 1.0;
        }
        cpus.push((cpu_seconds() - before) / times);
    }
    Measured { cpu: median(cpus), walls, answer }
}

fn of_reference(reference: &Reference) -> Answer {
    let mut all = Answer::new();
    for row in &reference.rows {
        let (sum, group) = row.split_last().expect("a sum");
        let sum = if sum.is_empty() { "0" } else { sum };
        *all.entry(group.to_vec()).or_default() += sum.parse::<Amount>().expect("a sum").0;
    }
    all
}

/// Imports the CSV, and says what that cost.
fn import(lake: &Lake, folder: &Path, lines: u64) -> Counting {
    let mut file = File::open(folder.join("bill.csv")).expect("the bill");
    forget_peak();
    let (start, cpu, before) = (Instant::now(), cpu_seconds(), peak_mib());
    let read = lake.read(&mut file, &Reading::default()).expect("it reads");
    let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    assert_eq!(read.parts.iter().map(|part| part.lines).sum::<u64>(), lines);
    println!(
        "- {lines} lines of FOCUS CSV ({} MiB) into {} segments with their cubes in {wall:.1} s: \
         **{:.0} lines per CPU second** (goal ≥ 160,000); peak memory {} MiB, {before} before.",
        file.metadata().map_or(0, |file| file.len() >> 20),
        read.parts.len(),
        lines as f64 / cpu,
        peak_mib(),
    );
    counting(read.parts)
}

pub(crate) fn run(size: Size) {
    let Some(generator) = argument("--bill-generator=", "SKYLEDGER_BILL_GENERATOR") else {
        println!("- not run: nobody makes the bill, see `tests/bench/cube.rs`.");
        return;
    };
    let rows = argument("--rows=", "SKYLEDGER_BILL_ROWS").map(|rows| rows.parse().expect("rows"));
    let lines: u64 = rows.unwrap_or(size.pick(10_000_000, 100_000));
    let python = python();
    let temporary = tempfile::tempdir().expect("a folder");
    let folder = argument("--bill-folder=", "SKYLEDGER_BILL_FOLDER").map(PathBuf::from);
    let folder = folder.as_deref().unwrap_or(temporary.path());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/cube.py");
    if !folder.join("bill.csv").exists() {
        run_to_end(Command::new(&python).arg(generator).arg(lines.to_string()).arg(folder));
        run_to_end(Command::new(&python).arg(&script).arg("load").arg(folder));
    }
    let lakes = tempfile::tempdir_in(folder).expect("a folder");

    let options = Options { cache_bytes: 4 << 30, ..Options::default() };
    let lake = Lake::open_with(lakes.path().join("lake"), options).expect("a lake");
    let counting = import(&lake, folder, lines);
    let whose = Whose { around: inventory(folder), ..Whose::default() };

    // The same segments, and cubes in which no tag has a column of its own.
    let plain = lakes.path().join("plain");
    std::fs::create_dir(&plain).expect("a folder");
    for (_, segment) in counting.segments() {
        let from = lake.path(&segment.digest).expect("a segment");
        std::fs::hard_link(&from, plain.join(from.file_name().expect("a name"))).expect("a link");
    }
    let tagless = Options { promoted_tags: 0, ..options };
    let plain = Lake::open_with(plain, tagless).expect("a lake");
    let cpu = cpu_seconds();
    costs(&plain, &counting, &question(&[], vec![])).expect("costs");
    println!(
        "- cubes made again from their segments: {:.0} lines per CPU second.",
        lines as f64 / (cpu_seconds() - cpu)
    );

    let mut command = Command::new(&python);
    command.arg(&script).arg("ask").arg(folder).arg(RUNS.to_string());
    let said = String::from_utf8(run_to_end(&mut command)).expect("text");
    println!("\n| {lines} lines, CPU ms | DuckDB | ours | ratio | our wall ms, p95 | sums |");
    println!("|---|--:|--:|--:|--:|---|");
    let (mut ratios, mut walls) = (Vec::new(), Vec::new());
    for reference in said.lines() {
        let reference: Reference = serde_json::from_str(reference).expect("an answer");
        let number = reference.name.as_bytes()[0];
        let asked = if reference.how == "map" { &plain } else { &lake };
        let mut ours = measure(|| ask(asked, &counting, &whose, number), number);
        let theirs = median(reference.cpus.clone());
        let ratio = ours.cpu / theirs;
        let expected = of_reference(&reference);
        let same = if ours.answer == expected { "equal" } else { "**differ**" };
        println!(
            "| {}{} | {:.1} | {:.1} | **{ratio:.2}** | {:.0} (DuckDB {:.0}) | {} groups, {same} |",
            reference.name,
            if reference.how == "map" { ", tags as a map" } else { "" },
            theirs * 1e3,
            ours.cpu * 1e3,
            percentile(&mut ours.walls, 0.95),
            median(reference.walls.clone()) * 1e3,
            expected.len(),
        );
        walls.extend(ours.walls);
        if reference.how != "map" {
            ratios.push(ratio);
        }
    }
    let mean = (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp();
    println!(
        "\n- geometric mean with a column for each tag **{mean:.2}** (goal ≤ 0.25), worst {:.2} (≤ \
         1), p95 of all {:.0} ms (≤ 1 s).",
        ratios.iter().copied().fold(0.0, f64::max),
        percentile(&mut walls, 0.95),
    );
    println!(
        "- in memory for these: {:.1} bytes a line.",
        lake.cached_bytes() as f64 / lines as f64
    );
    all_columns(&lake, &counting, lines);
    many_groups(&lake, &counting);
    allocated(&lake, &counting);
    explained(&lake, &counting);
}

/// Every column there is, at once.
fn all_columns(lake: &Lake, counting: &Counting, lines: u64) {
    let keys = ["project", "env", "team", "app", "cost_center"].map(|key| format!("tags.{key}"));
    let names = Dimension::PLAIN.into_iter().chain(keys.iter().map(String::as_str));
    for name in names {
        let absent = filter(name, Op::In, &["no such text"]);
        costs(lake, counting, &question(&[], vec![absent])).expect("costs");
    }
    for basis in Basis::ALL {
        costs(lake, counting, &CostQuery { basis, ..CostQuery::default() }).expect("costs");
    }
    println!(
        "- in memory with every column there is: **{:.1} bytes a line** (goal ≤ 60).",
        lake.cached_bytes() as f64 / lines as f64
    );
}

fn many_groups(lake: &Lake, counting: &Counting) {
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let table = costs(lake, counting, &question(&["day", "resource"], vec![])).expect("costs");
    println!(
        "- by day and resource: {} groups in {:.1} s, {:.1} s of CPU.",
        table.iter().count(),
        start.elapsed().as_secs_f64(),
        cpu_seconds() - cpu
    );
}

fn allocated(lake: &Lake, counting: &Counting) {
    let start = Instant::now();
    let allocated = allocate(lake, counting, &sharing(), Basis::Billed).expect("it is allocated");
    let error: i128 = allocated.buckets.values().map(|share| share.after.0 - share.before.0).sum();
    println!(
        "- all lines allocated by a draft rule in **{:.2} s**, error {error} (goal ≤ 60 s, 0).",
        start.elapsed().as_secs_f64()
    );
}

/// Numbers of every size, each with its largest lines.
fn explained(lake: &Lake, counting: &Counting) {
    let (mut walls, cpu) = (Vec::new(), cpu_seconds());
    for n in 0..100 {
        let service = filter("service", Op::In, &[&format!("Service-{:03}", n % 120)]);
        let month = filter("month", Op::In, &[&format!("2026-{:02}", n % 10 + 1)]);
        let env = filter("tags.env", Op::NotIn, &["prod"]);
        let filters = match n % 5 {
            0 => vec![],
            1 => vec![service],
            2 => vec![month],
            3 => vec![service, month],
            _ => vec![env, service],
        };
        let asked = question(&[], filters);
        let start = Instant::now();
        let explained = explain(lake, counting, &asked, SHOWN).expect("it is explained");
        walls.push(start.elapsed());
        assert!(n > 10 || !explained.lines.is_empty());
    }
    println!(
        "- a number explained with its {SHOWN} largest lines, 100 questions: p50 {:.0} ms, p99 \
         **{:.0} ms** (goal ≤ 300); {:.0} ms of CPU each.",
        percentile(&mut walls, 0.5),
        percentile(&mut walls, 0.99),
        (cpu_seconds() - cpu) * 1e3 / 100.0,
    );
}
