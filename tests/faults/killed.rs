//! kill -9 at random moments under load: every acknowledged request is in the log, once.
//!
//! The writer is this test binary again, as a child: eight writers append as fast as they can and
//! say on standard output what was acknowledged. The next child sends again what was not, under
//! the same key.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use commands::ports::{AppendFault, EventLog};

use crate::support::{
    Dice, fresh_schema, key, open_postgres, open_sqlite, postgres_url, request, whole,
};

const WRITERS: usize = 8;
/// Tells the child which log to write: `sqlite FOLDER` or `postgres SCHEMA`.
const LOG: &str = "SKYLEDGER_FAULTS_LOG";
/// Tells the child each writer's next number.
const NEXT: &str = "SKYLEDGER_FAULTS_NEXT";

/// Not a test of anything by itself: what the child runs. Comes back at once in a normal run.
#[tokio::test(flavor = "multi_thread")]
async fn writing_child() {
    let Ok(log) = std::env::var(LOG) else { return };
    let next: Vec<u64> =
        std::env::var(NEXT).unwrap().split(',').map(|next| next.parse().unwrap()).collect();
    let log: Arc<dyn EventLog> = match log.split_once(' ').unwrap() {
        ("sqlite", folder) => open_sqlite(Path::new(folder)),
        (_, schema) => open_postgres(&postgres_url(), schema).await,
    };
    let mut writers = tokio::task::JoinSet::new();
    for (writer, first) in next.into_iter().enumerate() {
        let log = log.clone();
        writers.spawn(async move {
            for number in first.. {
                let position = match log.append(request(writer, number)).await {
                    Ok(appended) => appended.last,
                    Err(AppendFault::Repeated(answered)) => answered.last,
                    Err(fault) => panic!("{fault:?}"),
                };
                // One write: a line is whole, or the pipe was closed before it.
                let line = format!("ack {writer} {number} {position}\n");
                if std::io::stdout().write_all(line.as_bytes()).is_err() {
                    return;
                }
            }
        });
    }
    writers.join_all().await;
}

fn spawn_child(log: &str, next: &[u64]) -> Child {
    let next: Vec<String> = next.iter().map(u64::to_string).collect();
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed::writing_child", "--nocapture", "--test-threads=1"])
        .env(LOG, log)
        .env(NEXT, next.join(","))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Kills so often; gives where each request was acknowledged, and each writer's next number.
fn kill_often(log: &str, kills: u32) -> (HashMap<String, u64>, Vec<u64>) {
    let mut dice = Dice(std::process::id().into());
    println!("seed {}", dice.0);
    let mut acked: HashMap<String, u64> = HashMap::new();
    let mut next = vec![1_u64; WRITERS];
    let mut killed_under_load = 0;
    let mut spawned = 0;
    while killed_under_load < kills {
        spawned += 1;
        assert!(spawned < kills * 3, "children keep dying before they write");
        let mut child = spawn_child(log, &next);
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        // Under load: from the first acknowledgement on, some more, and a moment.
        let wanted = 1 + dice.roll(60);
        let moment = Duration::from_micros(dice.roll(4_000));
        let mut seen = 0;
        let mut line = Vec::new();
        let mut note = |line: &[u8]| {
            let Some(line) = line.strip_suffix(b"\n") else { return false };
            let text = String::from_utf8_lossy(line);
            // The test harness's own words may stand before the first one.
            let Some(at) = text.find("ack ") else { return false };
            let numbers: Vec<u64> =
                text[at + 4..].split(' ').map(|number| number.parse().unwrap()).collect();
            let (writer, number, position) = (numbers[0] as usize, numbers[1], numbers[2]);
            let known = acked.insert(key(writer, number), position);
            assert!(known.is_none_or(|known| known == position), "{writer} {number} moved");
            next[writer] = number + 1;
            true
        };
        while seen < wanted {
            line.clear();
            if lines.read_until(b'\n', &mut line).unwrap() == 0 {
                break;
            }
            seen += u64::from(note(&line));
        }
        std::thread::sleep(moment);
        child.kill().unwrap();
        // One that ended by itself was not killed, however much it had written before.
        assert_eq!(child.wait().unwrap().signal(), Some(9), "a child ended by itself");
        killed_under_load += u32::from(seen >= wanted);
        let mut rest = Vec::new();
        lines.read_to_end(&mut rest).unwrap();
        for line in rest.split_inclusive(|byte| *byte == b'\n') {
            note(line);
        }
    }
    assert_eq!(killed_under_load, kills);
    (acked, next)
}

async fn compare(log: &dyn EventLog, acked: &HashMap<String, u64>, next: &[u64]) {
    let records = whole(log).await;
    let mut found: HashMap<String, u64> = HashMap::new();
    for record in &records {
        let request = record.request().unwrap();
        let twice = found.insert(request.key.clone(), record.position());
        assert_eq!(twice, None, "{} is in the log twice", request.key);
    }
    for (key, position) in acked {
        assert_eq!(found.get(key), Some(position), "{key} was acknowledged");
    }
    // What is there beyond that is at most the one request that each writer had out.
    for (writer, next) in next.iter().enumerate() {
        for number in 1..*next {
            assert!(found.contains_key(&key(writer, number)), "{writer} {number}");
        }
        assert!(!found.contains_key(&key(writer, next + 1)));
    }
    println!("{} acknowledged, {} in the log", acked.len(), records.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_kills_lose_and_double_nothing_embedded() {
    let folder = tempfile::tempdir().unwrap();
    let log = format!("sqlite {}", folder.path().display());
    let (acked, next) = tokio::task::spawn_blocking(move || kill_often(&log, 200)).await.unwrap();
    compare(open_sqlite(folder.path()).as_ref(), &acked, &next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_kills_lose_and_double_nothing_on_postgresql() {
    let schema = fresh_schema();
    let log = format!("postgres {schema}");
    // The schema is made first: the children come and go.
    let own = open_postgres(&postgres_url(), &schema).await;
    let (acked, next) = tokio::task::spawn_blocking(move || kill_often(&log, 200)).await.unwrap();
    compare(own.as_ref(), &acked, &next).await;
}
