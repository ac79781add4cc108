//! Clocks, servers and sums that the benches share.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use adapters_store_postgres as postgres;
use adapters_store_sqlite as sqlite;
use commands::{
    bills::{Counted, Counting},
    ports::{Append, EventLog, Expected, NewEvent, StreamAppend},
};
use domain::{
    finops::bill::{Bill, Segment},
    kernel::StreamId,
};
use tempfile::TempDir;
use uuid::Uuid;

/// How much is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// The figures of the document.
    Full,
    /// Whether it runs.
    Quick,
    /// As the document's, with logs of another length.
    Events(u64),
}

impl Size {
    pub(crate) fn pick<T>(self, full: T, quick: T) -> T {
        if self == Self::Quick { quick } else { full }
    }

    /// How many events a log has.
    pub(crate) fn events(self, full: u64, quick: u64) -> u64 {
        if let Self::Events(events) = self { events } else { self.pick(full, quick) }
    }
}

/// What the figures were measured on.
pub(crate) fn machine() {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("machine: {cores} cores,{}", model.trim_start_matches(['\t', ':']));
    println!("load at the start: {}", read("/proc/loadavg").trim());
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("a runtime starts")
}

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The value below which this share of the durations lies, in milliseconds.
pub(crate) fn percentile(durations: &mut [Duration], share: f64) -> f64 {
    durations.sort_unstable();
    let at = ((durations.len() as f64 * share).ceil() as usize).clamp(1, durations.len()) - 1;
    durations[at].as_secs_f64() * 1e3
}

/// CPU seconds of this process so far, user and system.
pub(crate) fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    cpu_of(&stat)
}

fn cpu_of(stat: &str) -> f64 {
    // After the name, which may hold anything, in brackets.
    let fields: Vec<&str> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<f64>().ok()).sum();
    ticks / 100.0
}

/// CPU seconds of all processes that the PostgreSQL of a folder has now.
pub(crate) fn cpu_seconds_of_server(server: &Postgres) -> f64 {
    let pid = std::fs::read_to_string(server.place.join("data/postmaster.pid")).unwrap_or_default();
    let parent = pid.lines().next().unwrap_or_default().to_owned();
    let mut sum = 0.0;
    for entry in std::fs::read_dir("/proc").expect("/proc is there").flatten() {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let rest = stat.rsplit(')').next().unwrap_or_default().to_owned();
        if rest.split_whitespace().nth(1) == Some(parent.as_str()) {
            sum += cpu_of(&stat);
        }
    }
    sum
}

/// The most memory this process has held, in MiB.
pub(crate) fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Forgets the peak so far, where the kernel allows it.
pub(crate) fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// A PostgreSQL of our own, stopped when dropped.
pub(crate) struct Postgres {
    pub(crate) url: String,
    pub(crate) place: PathBuf,
    _folder: TempDir,
}

fn script(arguments: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/postgres.sh");
    let output = Command::new(script).args(arguments).output().expect("the script runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl Postgres {
    pub(crate) fn start() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))
            .expect("the server's user may enter it");
        let place = folder.path().join("server");
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("it has an address").port();
        drop(free);
        let url = script(&["start", &place.display().to_string(), &port.to_string()]);
        Self { url, place, _folder: folder }
    }

    pub(crate) async fn open(&self, schema: &str) -> Arc<dyn EventLog> {
        let options =
            postgres::Options { schema: schema.to_owned(), ..postgres::Options::default() };
        Arc::new(postgres::Store::connect(&self.url, options).await.expect("it connects"))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        script(&["stop", &self.place.display().to_string()]);
    }
}

pub(crate) fn open_sqlite(folder: &Path) -> sqlite::Store {
    sqlite::Store::open(folder.join("log.sqlite"), sqlite::Options::default()).expect("it opens")
}

/// One event of about 500 bytes, as a request of its own to its own stream.
pub(crate) fn one_event(stream: Uuid) -> Append {
    let data = format!(r#"{{"name":"{}"}}"#, "x".repeat(488));
    append_of(vec![(stream, Expected::Any, "project", "renamed", data.into_bytes())])
}

type Part = (Uuid, Expected, &'static str, &'static str, Vec<u8>);

pub(crate) fn append_of(parts: Vec<Part>) -> Append {
    let command_id = Uuid::now_v7();
    Append {
        actor: "token:bench".to_owned(),
        command_id,
        correlation_id: command_id,
        causation_id: None,
        request: None,
        streams: parts
            .into_iter()
            .map(|(id, expected, kind, event_type, data)| StreamAppend {
                stream: StreamId::new(kind, id),
                expected,
                project: None,
                events: vec![NewEvent {
                    event_type: event_type.to_owned(),
                    schema_version: 1,
                    data,
                }],
            })
            .collect(),
    }
}

/// So many closed loops for so long; gives operations a second.
pub(crate) async fn closed_loops<F, O>(count: usize, how_long: Duration, work: F) -> f64
where
    F: Fn(usize) -> O + Send + Sync + 'static,
    O: Future<Output = ()> + Send,
{
    let work = Arc::new(work);
    let start = Instant::now();
    let mut loops = tokio::task::JoinSet::new();
    for client in 0..count {
        let work = work.clone();
        loops.spawn(async move {
            let mut done = 0_u64;
            while start.elapsed() < how_long {
                work(client).await;
                done += 1;
            }
            done
        });
    }
    let done: u64 = loops.join_all().await.into_iter().sum();
    done as f64 / start.elapsed().as_secs_f64()
}

/// The bills of what was read, as if each had been imported.
pub(crate) fn counting(parts: Vec<commands::ports::Part>) -> Counting {
    let bills = parts.into_iter().map(|part| {
        let segment = Segment {
            digest: part.digest,
            lines: part.lines,
            sums: part.sums.clone(),
            source: String::new(),
            source_digest: String::new(),
            findings: BTreeMap::new(),
            quarantined: 0,
            imported_by: String::new(),
            invoices: part.invoices,
        };
        let bill = Bill {
            month: Some(part.month),
            segments: vec![segment],
            sums: part.sums,
            ..Bill::default()
        };
        Counted { id: Uuid::nil(), bill }
    });
    Counting { bills: bills.collect(), position: 0 }
}
