//! Out and in again, and what is refused on the way.

use std::{io::Cursor, sync::Mutex};

use domain::{
    kernel::{StreamId, sha256},
    log::{ExportLine, Sign, SignedHead, Tampering},
};
use uuid::Uuid;

use super::*;
use crate::{
    ports::{Append, Expected, NewEvent, StreamAppend},
    testing::MemoryLog,
    transfer::{Lines, ProofFault, Writer, consistency, export, inclusion, root_at},
};

/// Depends on key and message as a signature does; Ed25519 itself is tested with the keys.
struct FakeSigner(VerifierKey);

impl FakeSigner {
    fn new() -> Self {
        Self(VerifierKey::new("skyledger.local/a", [3; 32]).unwrap())
    }
}

fn fake(public: &[u8; 32], message: &[u8]) -> [u8; 64] {
    let half = sha256(&[public.as_slice(), message].concat());
    [half, half].concat().try_into().unwrap()
}

impl Sign for FakeSigner {
    fn key(&self) -> &VerifierKey {
        &self.0
    }
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        fake(self.0.public(), message)
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as the functions under test take it")]
fn key() -> Option<(VerifierKey, Check)> {
    Some((FakeSigner::new().0, |public, message, signature| fake(public, message) == *signature))
}

async fn log_of(count: u128) -> MemoryLog {
    let log = MemoryLog::default();
    for n in 0..count {
        let data = format!(r#"{{"n":{n},"text":"ü \" \\ \n"}}"#).into_bytes();
        log.append(Append {
            actor: "token:ci".into(),
            command_id: Uuid::from_u128(n + 1),
            correlation_id: Uuid::from_u128(n + 1),
            causation_id: None,
            request: None,
            streams: vec![StreamAppend {
                stream: StreamId::new("server", n % 5),
                expected: Expected::Any,
                project: (n % 2 == 0).then(|| Uuid::from_u128(9)),
                events: vec![NewEvent { event_type: "tagged".into(), schema_version: 1, data }],
            }],
        })
        .await
        .unwrap();
    }
    log
}

async fn exported(log: &MemoryLog) -> Vec<u8> {
    let mut writer = Writer(Vec::new());
    export(log, &FakeSigner::new(), &mut writer, &|_, _| {}).await.unwrap();
    writer.0
}

async fn imported(log: &MemoryLog, bytes: &[u8]) -> Result<Imported, TransferFault> {
    import(log, &mut Lines(Cursor::new(bytes)), key(), &|_, _| {}).await
}

#[tokio::test]
async fn a_log_comes_out_and_in_again_with_the_same_head_and_the_same_bytes() {
    for count in [0, 1, 499, 500, 1_203] {
        let log = log_of(count).await;
        let bytes = exported(&log).await;
        let copy = MemoryLog::default();
        let done = imported(&copy, &bytes).await.unwrap();
        assert_eq!((done.position, done.resumed_after), (count as u64, 0));
        assert_eq!(copy.head().await.unwrap().frontier, log.head().await.unwrap().frontier);
        assert_eq!(exported(&copy).await, bytes);
    }
}

#[tokio::test]
async fn an_import_that_was_broken_off_goes_on_and_one_that_is_done_changes_nothing() {
    let log = log_of(1_203).await;
    let bytes = exported(&log).await;
    for there in [1, 500, 777, 1_203] {
        let copy = MemoryLog::default();
        copy.restore(log.read(0, there).await.unwrap()).await.unwrap();
        let done = imported(&copy, &bytes).await.unwrap();
        assert_eq!((done.position, done.resumed_after), (1_203, there as u64));
        assert_eq!(copy.head().await.unwrap().frontier, log.head().await.unwrap().frontier);
    }
}

#[tokio::test]
async fn a_log_that_holds_other_records_is_refused() {
    let bytes = exported(&log_of(20).await).await;
    let longer = log_of(21).await;
    assert!(matches!(imported(&longer, &bytes).await, Err(TransferFault::NotEmpty(21))));
    // The same first record, another second.
    let records = log_of(2).await.read(0, 2).await.unwrap();
    let other = MemoryLog::default();
    let second = Record::new(&records[1].header(), b"{}");
    other.restore(vec![records[0].clone(), second]).await.unwrap();
    assert!(matches!(imported(&other, &bytes).await, Err(TransferFault::NotEmpty(2))));
    assert_eq!(other.head().await.unwrap().position, 2);
}

#[tokio::test]
async fn a_changed_export_is_refused_and_nothing_is_written() {
    let log = log_of(40).await;
    let lines: Vec<Vec<u8>> =
        exported(&log).await.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let check = async |lines: Vec<Vec<u8>>, kind, position| {
        let copy = MemoryLog::default();
        match imported(&copy, &lines.concat()).await {
            Err(TransferFault::Refused(verdict)) => {
                let found = verdict.finding.unwrap();
                assert_eq!((found.kind, found.position), (kind, position), "{}", found.detail);
            }
            other => panic!("{kind:?}: {other:?}"),
        }
        assert_eq!(copy.head().await.unwrap().position, 0);
    };
    let mut edited = lines.clone();
    let text = String::from_utf8(edited[7].clone()).unwrap().replace("token:ci", "token:cj");
    edited[7] = text.into_bytes();
    check(edited, Tampering::Edited, Some(7)).await;

    let mut deleted = lines.clone();
    deleted.remove(9);
    check(deleted, Tampering::Deleted, Some(9)).await;

    let mut swapped = lines.clone();
    swapped.swap(9, 10);
    check(swapped, Tampering::Reordered, Some(9)).await;

    let cut = lines[..30].to_vec();
    check(cut, Tampering::CutOff, Some(30)).await;

    let mut other_head = lines.clone();
    let signed = SignedHead::sign(&FakeSigner::new(), 40, [1; 32]);
    other_head[41] = ExportLine::Head(signed).bytes();
    check(other_head, Tampering::Edited, None).await;
}

#[tokio::test]
async fn every_proof_the_log_gives_verifies_and_what_is_not_there_is_refused() {
    let log = log_of(300).await;
    for size in [1, 2, 3, 255, 256, 257, 300] {
        for position in [1, 2, size / 2 + 1, size] {
            if position > size {
                continue;
            }
            let mut proof = inclusion(&log, position, size).await.unwrap();
            assert!(proof.verify(), "{position} of {size}");
            proof.position = position % size + 1;
            assert!(size == 1 || !proof.verify(), "{position} of {size}");
        }
        let mut proof = consistency(&log, size / 2, size).await.unwrap();
        assert!(proof.verify(), "{size}");
        assert_eq!(proof.to_root, hex(&root_at(&log, size).await.unwrap()));
        proof.from_root = "00".repeat(32);
        assert!(!proof.verify());
    }
    for (position, size) in [(0, 5), (6, 5), (1, 301), (1, 0)] {
        let answer = inclusion(&log, position, size).await;
        assert!(matches!(answer, Err(ProofFault::Range(_))), "{position} of {size}");
    }
    assert!(matches!(consistency(&log, 6, 5).await, Err(ProofFault::Range(_))));
    assert!(matches!(consistency(&log, 5, 301).await, Err(ProofFault::Range(_))));
}

/// A source whose content is another when it is read again.
struct Changing(Mutex<Vec<Vec<u8>>>, Lines<Cursor<Vec<u8>>>);

#[async_trait::async_trait]
impl Source for Changing {
    async fn line(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        self.1.line().await
    }
    async fn rewind(&mut self) -> std::io::Result<()> {
        self.1 = Lines(Cursor::new(self.0.lock().unwrap().remove(0)));
        Ok(())
    }
}

#[tokio::test]
async fn an_import_says_how_far_it_is_and_of_how_much_once_it_knows() {
    let bytes = exported(&log_of(1_000).await).await;
    let told = Mutex::new(Vec::new());
    let tell = |read, total| told.lock().unwrap().push((read, total));
    let copy = MemoryLog::default();
    import(&copy, &mut Lines(Cursor::new(&bytes)), key(), &tell).await.unwrap();
    // Lines that are no records tell where it is once more.
    let mut told = told.into_inner().unwrap();
    told.dedup();
    let all = Some(1_000);
    assert_eq!(told, [(0, None), (500, None), (1_000, None), (500, all), (1_000, all)]);
}

#[tokio::test]
async fn an_export_that_changes_between_verifying_and_taking_over_is_noticed() {
    let (one, other) = (exported(&log_of(10).await).await, exported(&log_of(9).await).await);
    let mut source = Changing(Mutex::new(vec![one, other]), Lines(Cursor::new(Vec::new())));
    let copy = MemoryLog::default();
    let answer = import(&copy, &mut source, key(), &|_, _| {}).await;
    assert!(matches!(answer, Err(TransferFault::Changed(10))), "{answer:?}");
}
