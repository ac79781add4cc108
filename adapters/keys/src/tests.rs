//! The witness against a log in memory: what a restored, cut or changed store looks like to it.

use std::{fs, path::PathBuf};

use commands::{
    ports::{Append, Expected, NewEvent, StreamAppend},
    testing::{MemoryLog, TestClock},
    transfer::{Writer, export},
};
use domain::{
    kernel::StreamId,
    log::{Record, Tampering, Verdict, Verifier},
};
use uuid::Uuid;

use super::*;
use crate::{HeadSigner, verify_signature};

struct Bench {
    folder: tempfile::TempDir,
    signer: Arc<HeadSigner>,
}

impl Bench {
    fn new() -> Self {
        let signer = HeadSigner::new("skyledger.local/a", &[7; 32]).unwrap();
        Self { folder: tempfile::tempdir().unwrap(), signer: Arc::new(signer) }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("witness")
    }

    fn open(&self) -> Result<Witness, WitnessFileFault> {
        Witness::open(&self.path(), self.signer.clone(), verify_signature)
    }

    /// Exports a log, signed with the true key, and verifies it offline with the witness.
    async fn verify(&self, log: &MemoryLog) -> Verdict {
        let mut writer = Writer(Vec::new());
        export(log, &*self.signer, &mut writer, &|_, _| {}).await.unwrap();
        let key = (self.signer.key().clone(), verify_signature as Check);
        let witnessed = read_witness(&self.path(), Some((&key.0, key.1))).unwrap();
        let mut verifier = Verifier::new(Some(witnessed), Some(key));
        for line in writer.0.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            verifier.feed(line);
        }
        verifier.finish()
    }
}

async fn grow(log: &MemoryLog, count: u64) {
    let first = log.head().await.unwrap().position;
    for n in first..first + count {
        log.append(Append {
            actor: "token:ci".into(),
            command_id: Uuid::from_u128(u128::from(n) + 1),
            correlation_id: Uuid::from_u128(1),
            causation_id: None,
            request: None,
            streams: vec![StreamAppend {
                stream: StreamId::new("server", n % 5),
                expected: Expected::Any,
                project: None,
                events: vec![NewEvent {
                    event_type: "tagged".into(),
                    schema_version: 1,
                    data: format!(r#"{{"n":{n}}}"#).into_bytes(),
                }],
            }],
        })
        .await
        .unwrap();
    }
}

/// The log as a forger leaves it: every hash made again.
async fn forged(log: &MemoryLog, change: impl FnOnce(&mut Vec<Record>)) -> MemoryLog {
    let mut records = log.read(0, usize::MAX).await.unwrap();
    change(&mut records);
    let copy = MemoryLog::default();
    copy.restore(records).await.unwrap();
    copy
}

fn replaced(records: &mut [Record], position: usize) {
    let record = &mut records[position - 1];
    *record = Record::new(&record.header(), br#"{"n":"forged"}"#);
}

#[tokio::test]
async fn what_is_published_is_there_when_the_file_is_opened_again() {
    let (bench, log) = (Bench::new(), MemoryLog::default());
    let witness = bench.open().unwrap();
    assert_eq!(witness.publish(&log).await.unwrap(), None);
    for count in [1, 0, 300, 3] {
        grow(&log, count).await;
        let signed = witness.publish(&log).await.unwrap().unwrap();
        let head = log.head().await.unwrap();
        assert_eq!((signed.head.size, signed.head.root), (head.position, head.frontier.root()));
    }
    drop(witness);
    assert_eq!(fs::read_to_string(bench.path()).unwrap().lines().count(), 3);
    let witness = bench.open().unwrap();
    assert_eq!(witness.size().await, 304);
    witness.compare(&log).await.unwrap();
    grow(&log, 9).await;
    witness.compare(&log).await.unwrap();
    let verdict = bench.verify(&log).await;
    assert_eq!((verdict.finding, verdict.vouched), (None, 304));
}

#[tokio::test]
async fn a_store_with_another_past_is_found_and_the_first_position_named() {
    let (bench, log) = (Bench::new(), MemoryLog::default());
    grow(&log, 300).await;
    let witness = bench.open().unwrap();
    witness.publish(&log).await.unwrap();

    let old = forged(&log, |records| records.truncate(280)).await;
    let fault = witness.compare(&old).await.unwrap_err();
    assert!(matches!(fault, WitnessFault::Behind { store: 280, witness: 300 }), "{fault}");
    assert!(matches!(witness.publish(&old).await, Err(WitnessFault::Behind { .. })));
    let found = bench.verify(&old).await.finding.unwrap();
    assert_eq!((found.kind, found.position), (Tampering::OldBackup, Some(281)));

    for position in [1, 150, 300] {
        let edited = forged(&log, |records| replaced(records, position)).await;
        let fault = witness.compare(&edited).await.unwrap_err();
        let position = position as u64;
        assert!(
            matches!(fault, WitnessFault::Replaced { position: at, .. } if at == position),
            "{fault}"
        );
        let found = bench.verify(&edited).await.finding.unwrap();
        assert_eq!((found.kind, found.position), (Tampering::Edited, Some(position)));
        // It grows past the witness: still found, and nothing is signed.
        grow(&edited, 5).await;
        let fault = witness.publish(&edited).await.unwrap_err();
        assert!(
            matches!(fault, WitnessFault::Replaced { position: at, .. } if at == position),
            "{fault}"
        );
    }
    assert_eq!(witness.size().await, 300);
}

#[tokio::test]
async fn a_tail_torn_at_any_byte_is_cut_off_and_the_witness_goes_on() {
    let (bench, log) = (Bench::new(), MemoryLog::default());
    let witness = bench.open().unwrap();
    grow(&log, 3).await;
    witness.publish(&log).await.unwrap();
    let first = fs::read(bench.path()).unwrap().len();
    grow(&log, 3).await;
    witness.publish(&log).await.unwrap();
    drop(witness);
    let whole = fs::read(bench.path()).unwrap();
    for end in first..whole.len() {
        fs::write(bench.path(), &whole[..end]).unwrap();
        let witness = bench.open().unwrap();
        assert_eq!(witness.size().await, 3, "cut at {end}");
        assert_eq!(fs::read(bench.path()).unwrap().len(), first);
    }
    // The end was written, a page before it was not.
    let mut hole = whole.clone();
    hole[first + 20..first + 60].fill(0);
    fs::write(bench.path(), &hole).unwrap();
    let witness = bench.open().unwrap();
    assert_eq!(witness.publish(&log).await.unwrap().unwrap().head.size, 6);
    assert_eq!(fs::read(bench.path()).unwrap(), whole);
}

#[tokio::test]
async fn damage_before_the_tail_is_refused_with_its_line_and_changes_nothing() {
    let (bench, log) = (Bench::new(), MemoryLog::default());
    let witness = bench.open().unwrap();
    for _ in 0..3 {
        grow(&log, 2).await;
        witness.publish(&log).await.unwrap();
    }
    drop(witness);
    let whole = fs::read(bench.path()).unwrap();
    let ends: Vec<usize> = (0..whole.len()).filter(|place| whole[*place] == b'\n').collect();
    for byte in (0..whole.len() - 1).step_by(11) {
        let mut damaged = whole.clone();
        damaged[byte] ^= 1;
        let wanted = ends.iter().filter(|end| **end < byte).count() as u64 + 1;
        fs::write(bench.path(), &damaged).unwrap();
        match bench.open() {
            Err(WitnessFileFault::Damaged { line, .. }) => {
                assert_eq!(line, wanted, "byte {byte}");
            }
            other => panic!("byte {byte}: {:?}", other.err()),
        }
        assert_eq!(fs::read(bench.path()).unwrap(), damaged);
    }
    let without_the_second = [&whole[..=ends[0]], &whole[ends[1] + 1..]].concat();
    fs::write(bench.path(), without_the_second).unwrap();
    assert!(matches!(bench.open(), Err(WitnessFileFault::Damaged { line: 2, .. })));
}

#[tokio::test]
async fn the_file_has_one_writer() {
    let bench = Bench::new();
    let first = bench.open().unwrap();
    assert!(matches!(bench.open(), Err(WitnessFileFault::Io { .. })));
    drop(first);
    bench.open().unwrap();
}

#[tokio::test]
async fn the_loop_publishes_what_comes_and_once_more_at_the_end() {
    let (bench, log) = (Bench::new(), Arc::new(MemoryLog::default()));
    let witness = Arc::new(bench.open().unwrap());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn({
        let (witness, log) = (witness.clone(), log.clone());
        async move {
            let stopped = async { stopped.await.unwrap_or_default() };
            witness.run(&*log, &TestClock::default(), stopped).await
        }
    });
    grow(&log, 5).await;
    while witness.size().await < 5 {
        tokio::task::yield_now().await;
    }
    grow(&log, 2).await;
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
    assert_eq!(witness.head().await.unwrap().head.size, 7);
}
