//! Every way to tamper with a log of some hundred records, at many places: what the verifier says.

use chrono::DateTime;
use uuid::Uuid;

use super::*;
use crate::log::{
    Header, Sign,
    note::tests::{FakeSigner, fake_check},
};

const RECORDS: u64 = 120;

fn header(position: u64, revision: u64, seed: u64) -> Header {
    let id = Uuid::new_v5(&Uuid::from_u128(u128::from(seed)), &position.to_be_bytes());
    Header {
        position,
        recorded_at: DateTime::from_timestamp_micros(1_700_000_000_000_000 + position as i64)
            .unwrap(),
        kind: "server".into(),
        id: format!("s{}", position % 7),
        revision,
        event_id: id,
        event_type: "tagged".into(),
        schema_version: 1,
        actor: "token:ci".into(),
        project: None,
        command_id: id,
        correlation_id: id,
        causation_id: None,
        request: None,
    }
}

fn records(count: u64, seed: u64) -> Vec<Record> {
    (1..=count)
        .map(|n| {
            Record::new(&header(n, (n - 1) / 7 + 1, seed), format!(r#"{{"n":{n}}}"#).as_bytes())
        })
        .collect()
}

fn signer() -> FakeSigner {
    FakeSigner::new("skyledger.local/a")
}

fn root(records: &[Record]) -> Hash {
    let mut frontier = Frontier::default();
    for record in records {
        frontier.push(record.leaf(), |_| {});
    }
    frontier.root()
}

fn export(records: &[Record], signer: &FakeSigner) -> Vec<Vec<u8>> {
    let size = records.len() as u64;
    let mut lines = vec![ExportLine::Header { origin: "skyledger.local/a".into(), size }.bytes()];
    lines.extend(records.iter().map(|record| ExportLine::record(record).bytes()));
    lines.push(ExportLine::Head(SignedHead::sign(signer, size, root(records))).bytes());
    lines
}

fn witness(records: &[Record]) -> Witnessed {
    let signer = signer();
    let mut witnessed = Witnessed::default();
    for end in [50, records.len()] {
        let first = witnessed.size();
        let part = &records[first as usize..end];
        let (leaves, tags) = part.iter().map(|record| WitnessEntry::of(record).unwrap()).unzip();
        let signed = SignedHead::sign(&signer, end as u64, root(&records[..end]));
        let entry = WitnessEntry { first: first + 1, leaves, tags, signed };
        let entry = WitnessEntry::parse(entry.line().as_bytes()).unwrap();
        witnessed.accept(entry, Some((signer.key(), fake_check))).unwrap();
    }
    witnessed
}

fn verify(lines: &[Vec<u8>], witness: Option<&Witnessed>, key: bool) -> Verdict {
    let key = key.then(|| (signer().0.clone(), fake_check as Check));
    let mut verifier = Verifier::new(witness.cloned(), key);
    for line in lines {
        verifier.feed(line);
    }
    verifier.finish()
}

fn named(verdict: &Verdict) -> Option<(Tampering, Option<u64>)> {
    verdict.finding.as_ref().map(|found| (found.kind, found.position))
}

/// Checks with the export alone and with everything: both must name it.
fn check(lines: &[Vec<u8>], kind: Tampering, position: u64) {
    let all = witness(&records(RECORDS, 1));
    for verdict in [verify(lines, None, false), verify(lines, Some(&all), true)] {
        assert_eq!(named(&verdict), Some((kind, Some(position))), "{verdict}");
    }
}

/// Renumbers positions and revisions, so that only hashes and the witness can tell.
fn renumbered(records: Vec<Record>) -> Vec<Record> {
    let mut revisions: HashMap<String, u64> = HashMap::new();
    (1..)
        .zip(records)
        .map(|(position, record)| {
            let mut header = record.header();
            let revision = revisions.entry(header.id.clone()).or_default();
            *revision += 1;
            (header.position, header.revision) = (position, *revision);
            header.recorded_at =
                DateTime::from_timestamp_micros(1_700_000_000_000_000 + position as i64).unwrap();
            Record::new(&header, record.data())
        })
        .collect()
}

#[test]
fn a_log_that_nobody_touched_is_verified_and_vouched_for_to_its_end() {
    let records = records(RECORDS, 1);
    let all = witness(&records);
    let verdict = verify(&export(&records, &signer()), Some(&all), true);
    assert_eq!(verdict.finding, None, "{verdict}");
    assert_eq!((verdict.records, verdict.vouched), (RECORDS, RECORDS));
    assert_eq!(verdict.signature, Signature::Good);
    assert_eq!(verify(&export(&records[..0], &signer()), None, true).finding, None);
}

#[test]
fn any_changed_byte_of_a_record_names_the_record() {
    let lines = export(&records(12, 1), &signer());
    for position in [1, 7, 12] {
        for byte in 0..lines[position as usize].len() {
            let mut lines = lines.clone();
            lines[position as usize][byte] ^= 1;
            let verdict = verify(&lines, None, false);
            assert_eq!(
                named(&verdict),
                Some((Tampering::Edited, Some(position))),
                "byte {byte}: {verdict}"
            );
        }
    }
}

#[test]
fn any_changed_byte_of_the_first_or_last_line_is_noticed() {
    let lines = export(&records(9, 1), &signer());
    for line in [0, lines.len() - 1] {
        for byte in 0..lines[line].len() {
            let mut lines = lines.clone();
            lines[line][byte] ^= 1;
            assert!(verify(&lines, None, true).finding.is_some(), "line {line} byte {byte}");
        }
    }
}

#[test]
fn a_line_deleted_inserted_swapped_or_cut_off_is_named() {
    let lines = export(&records(RECORDS, 1), &signer());
    for at in (1..RECORDS).step_by(23) {
        let index = at as usize;
        let mut deleted = lines.clone();
        deleted.remove(index);
        check(&deleted, Tampering::Deleted, at);

        let mut swapped = lines.clone();
        swapped.swap(index, index + 1);
        check(&swapped, Tampering::Reordered, at);

        let mut moved = lines.clone();
        let line = moved.remove(index);
        moved.insert(RECORDS as usize, line);
        check(&moved, Tampering::Reordered, at);

        let mut cut = lines.clone();
        cut.truncate(index);
        check(&cut, Tampering::CutOff, at);

        let mut cut_above_the_head = lines.clone();
        cut_above_the_head.drain(index..=RECORDS as usize);
        check(&cut_above_the_head, Tampering::CutOff, at);

        let mut copied = lines.clone();
        copied.insert(RECORDS as usize + 1, lines[index].clone());
        let verdict = verify(&copied, None, false);
        assert_eq!(named(&verdict), Some((Tampering::Inserted, Some(RECORDS + 1))), "{verdict}");
    }
}

#[test]
fn with_the_witness_a_forger_who_recomputes_everything_is_still_named_exactly() {
    let genuine = records(RECORDS, 1);
    let all = witness(&genuine);
    // Even with the signing key itself.
    let named = |forged: Vec<Record>| named(&verify(&export(&forged, &signer()), Some(&all), true));
    for at in (1..RECORDS).step_by(17) {
        let index = at as usize - 1;
        let mut edited = genuine.clone();
        edited[index] = Record::new(&edited[index].header(), br#"{"n":"forged"}"#);
        assert_eq!(named(edited), Some((Tampering::Edited, Some(at))));

        let mut replaced = genuine.clone();
        replaced[index] = Record::new(&header(at, replaced[index].revision(), 2), b"{}");
        assert_eq!(named(replaced), Some((Tampering::Edited, Some(at))));

        let mut deleted = genuine.clone();
        deleted.remove(index);
        assert_eq!(named(renumbered(deleted)), Some((Tampering::Deleted, Some(at))));

        let mut inserted = genuine.clone();
        inserted.insert(index, Record::new(&header(at, 1, 2), b"{}"));
        assert_eq!(named(renumbered(inserted)), Some((Tampering::Inserted, Some(at))));

        let mut swapped = genuine.clone();
        swapped.swap(index, index + 1);
        assert_eq!(named(renumbered(swapped)), Some((Tampering::Reordered, Some(at))));

        let mut tail = genuine.clone();
        tail.truncate(index);
        tail.extend(records(RECORDS + 5, 2).split_off(index));
        assert_eq!(named(tail), Some((Tampering::TailReplaced, Some(at))));

        assert_eq!(named(genuine[..index].to_vec()), Some((Tampering::OldBackup, Some(at))));
    }
}

#[test]
fn without_the_witness_a_forger_without_the_key_is_noticed_by_the_signature() {
    let mut forged = records(RECORDS, 1);
    forged[9] = Record::new(&forged[9].header(), br#"{"n":"forged"}"#);
    let forger = FakeSigner(VerifierKey::new("skyledger.local/a", [5; 32]).unwrap());
    let own_head = verify(&export(&forged, &forger), None, true);
    assert_eq!(named(&own_head), Some((Tampering::Head, None)));
    assert_eq!(own_head.signature, Signature::Bad);

    let mut old_head = export(&forged, &forger);
    let genuine = export(&records(RECORDS, 1), &signer());
    *old_head.last_mut().unwrap() = genuine.last().unwrap().clone();
    assert_eq!(named(&verify(&old_head, None, true)), Some((Tampering::Edited, None)));
}

#[test]
fn streams_and_times_are_checked_even_when_every_hash_fits() {
    let mut jump = records(RECORDS, 1);
    let mut header = jump[30].header();
    header.revision += 1;
    jump[30] = Record::new(&header, jump[30].data());
    let verdict = verify(&export(&jump, &signer()), None, true);
    assert_eq!(named(&verdict), Some((Tampering::Deleted, Some(31))), "{verdict}");

    let mut back = records(RECORDS, 1);
    let mut header = back[30].header();
    header.recorded_at = back[3].recorded_at();
    back[30] = Record::new(&header, back[30].data());
    let verdict = verify(&export(&back, &signer()), None, true);
    assert_eq!(named(&verdict), Some((Tampering::Reordered, Some(31))), "{verdict}");
}

#[test]
fn a_witness_that_was_itself_changed_is_refused() {
    let genuine = records(9, 1);
    let (leaves, tags) = genuine.iter().map(|record| WitnessEntry::of(record).unwrap()).unzip();
    let signed = SignedHead::sign(&signer(), 9, root(&genuine));
    let entry = WitnessEntry { first: 1, leaves, tags, signed };
    let line = entry.line().into_bytes();
    for byte in 0..line.len() {
        let mut line = line.clone();
        line[byte] ^= 1;
        assert!(WitnessEntry::parse(&line).is_err(), "byte {byte}");
    }
    let key = signer();
    let key = Some((key.key(), fake_check as Check));
    let mut other = entry.clone();
    other.leaves[4] = [1; 32];
    assert!(Witnessed::default().accept(other, key).is_err());
    let mut late = entry.clone();
    late.first = 2;
    assert!(Witnessed::default().accept(late, key).is_err());
    let stranger = FakeSigner(VerifierKey::new("skyledger.local/a", [5; 32]).unwrap());
    let unsigned =
        WitnessEntry { signed: SignedHead::sign(&stranger, 9, entry.signed.head.root), ..entry };
    assert!(Witnessed::default().accept(unsigned, key).is_err());
}
