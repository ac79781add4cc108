//! Segments keep what they are given, name it by its content, and leave nothing else behind.

use std::{collections::BTreeMap, fs, path::Path};

use chrono::{DateTime, TimeDelta};
use domain::finops::{
    amount::{Amount, BillingMonth, Currency},
    line::{ChargeCategory, Line},
};
use tempfile::TempDir;

use super::{Lake, LakeFault, Segment, columns::blank};

fn line(number: u64) -> Line {
    let from = DateTime::from_timestamp(1_790_000_000, 0).unwrap();
    let from =
        from + TimeDelta::hours(number as i64 % 700) + TimeDelta::microseconds(number as i64);
    let texts = |key: &str| BTreeMap::from([(key.to_owned(), format!("\"{number}\" ü"))]);
    let full = !number.is_multiple_of(3);
    let mut line =
        blank(Currency::try_from(["EUR", "USD"][number as usize % 2].to_owned()).unwrap());
    line.number = number;
    line.billing_account = format!("account-{}", number % 7);
    line.month = BillingMonth::of(from.date_naive());
    (line.from, line.to) = (from, from + TimeDelta::hours(1));
    line.category = ChargeCategory::ALL[number as usize % 5];
    line.correction = number.is_multiple_of(11);
    line.billed = Amount(i128::from(number) * 1_000_000_000_007 - 500_000_000_000_000);
    line.effective = Amount(-line.billed.0);
    line.list = Amount(i128::from(number).pow(5) * 1_000_003);
    line.contracted = Amount(10_i128.pow(38) - 1);
    if full {
        line.resource = format!("resource-{number}");
        line.service = "Compute, and more".to_owned();
        line.quantity = "0.083333333333000000".to_owned();
        line.tags = texts("env");
        line.other = texts("x_Anything");
    }
    line
}

fn written<'a>(lake: &Lake, lines: impl IntoIterator<Item = &'a Line>) -> Segment {
    let mut writer = lake.writer().unwrap();
    for line in lines {
        writer.push(line).unwrap();
    }
    writer.finish().unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

fn lake() -> (TempDir, Lake) {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(folder.path().join("lake")).unwrap();
    (folder, lake)
}

#[test]
fn lines_come_back_as_they_went_in_over_several_row_groups() {
    let (_folder, lake) = lake();
    let lines: Vec<_> = (2..70_002).map(line).collect();
    let segment = written(&lake, &lines);
    let back = lake.lines(&segment.digest).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    assert!(back == lines);
    assert_eq!(segment.rows, 70_000);
    let path = lake.path(&segment.digest).unwrap();
    assert_eq!(fs::metadata(path).unwrap().len(), segment.bytes);
    lake.verify(&segment.digest).unwrap();
}

#[test]
fn a_segment_without_lines_is_one() {
    let (_folder, lake) = lake();
    let segment = written(&lake, []);
    assert_eq!((segment.rows, lake.lines(&segment.digest).unwrap().count()), (0, 0));
}

#[test]
fn the_same_lines_are_the_same_segment_and_others_another() {
    let ((one, lake), (_two, elsewhere)) = (lake(), lake());
    let mut lines: Vec<_> = (2..5000).map(line).collect();
    let segment = written(&lake, &lines);
    assert_eq!(written(&lake, &lines), segment);
    assert_eq!(written(&elsewhere, &lines), segment);
    assert_eq!(names(&one.path().join("lake")), [format!("{}.parquet", segment.digest)]);
    lines.swap(17, 18);
    assert_ne!(written(&lake, &lines).digest, segment.digest);
    lines.swap(17, 18);
    lines[17].billed.0 += 1;
    assert_ne!(written(&lake, &lines).digest, segment.digest);
}

/// Kept segments are found by their digest for ever: this one changes when the library writes
/// the same lines differently. Old segments stay readable, but the same bill has a second name.
#[test]
fn the_digest_is_the_same_with_every_build() {
    let (_folder, lake) = lake();
    let segment = written(&lake, &(2..100).map(line).collect::<Vec<_>>());
    assert_eq!(segment.digest, "81cea9c11c9c0af8b3efe7371d1f4cbf4b0d7bb15ccd40adc111f0882d557342");
}

#[test]
fn what_a_column_cannot_hold_is_refused_and_not_in_the_segment() {
    let (_folder, lake) = lake();
    let mut writer = lake.writer().unwrap();
    let mut large = line(7);
    large.list = Amount(10_i128.pow(38));
    let mut fine = line(8);
    fine.to += TimeDelta::nanoseconds(1);
    for (line, named) in [(large, "ListCost"), (fine, "ChargePeriodEnd")] {
        let Err(LakeFault::OutOfRange { line: number, column }) = writer.push(&line) else {
            panic!("{named} was taken");
        };
        assert_eq!((number, column), (line.number, named));
    }
    writer.push(&line(9)).unwrap();
    let digest = writer.finish().unwrap().digest;
    let back = lake.lines(&digest).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!(back, [line(9)]);
}

#[test]
fn a_dropped_writer_leaves_nothing() {
    let (folder, lake) = lake();
    let mut writer = lake.writer().unwrap();
    for number in 2..70_000 {
        writer.push(&line(number)).unwrap();
    }
    assert_eq!(names(&folder.path().join("lake")).len(), 1);
    drop(writer);
    assert_eq!(names(&folder.path().join("lake")), [""; 0]);
}

#[test]
fn what_a_killed_writer_left_is_removed_and_a_living_one_is_left_alone() {
    let (folder, lake) = lake();
    let folder = folder.path().join("lake");
    let kept = written(&lake, &[line(2)]);
    fs::write(folder.join(".segment-dead.part"), "PAR1").unwrap();
    fs::write(folder.join("notes.txt"), "not ours").unwrap();
    let mut living = lake.writer().unwrap();
    living.push(&line(3)).unwrap();
    let again = Lake::open(&folder).unwrap();
    assert!(!names(&folder).contains(&".segment-dead.part".to_owned()));
    let segment = living.finish().unwrap();
    assert_eq!(again.lines(&segment.digest).unwrap().count(), 1);
    let mut expected = [kept.digest, segment.digest].map(|digest| format!("{digest}.parquet"));
    expected.sort();
    assert_eq!(names(&folder), [expected.to_vec(), vec!["notes.txt".to_owned()]].concat());
}

#[test]
fn damage_is_found_and_names_the_segment() {
    let (_folder, lake) = lake();
    let lines: Vec<_> = (2..300).map(line).collect();
    let digest = written(&lake, &lines).digest;
    let path = lake.path(&digest).unwrap();
    let bytes = fs::read(&path).unwrap();
    let replace = |bytes: &[u8]| {
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
    };
    let step = (bytes.len() / 400).max(1);
    for at in (0..bytes.len()).step_by(step) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x55;
        replace(&damaged);
        match lake.verify(&digest) {
            Err(LakeFault::Damaged { digest: named, .. }) => assert_eq!(named, digest),
            other => panic!("byte {at} changed: {other:?}"),
        }
        match lake.lines(&digest) {
            Err(LakeFault::Damaged { digest: named, .. }) => assert_eq!(named, digest),
            other => panic!("byte {at} changed: {other:?}"),
        }
    }
    replace(&bytes[..bytes.len() - 1]);
    assert!(matches!(lake.verify(&digest), Err(LakeFault::Damaged { .. })));
    assert!(matches!(lake.lines(&digest), Err(LakeFault::Damaged { .. })));
    // Writing the same lines heals it.
    assert_eq!(written(&lake, &lines).digest, digest);
    lake.verify(&digest).unwrap();
}

#[test]
fn a_missing_segment_is_missing_and_a_path_is_no_digest() {
    let (_folder, lake) = lake();
    let digest = "0".repeat(64);
    assert!(matches!(lake.verify(&digest), Err(LakeFault::Missing(named)) if named == digest));
    assert!(matches!(lake.lines(&digest), Err(LakeFault::Missing(named)) if named == digest));
    for name in ["", "../x", &"F".repeat(64), &format!("../{}", "0".repeat(61))] {
        assert!(matches!(lake.verify(name), Err(LakeFault::NotADigest(_))), "{name}");
    }
}
