//! Golden events: what was written once is read for ever, and means the same.
//!
//! `BLESS=1` writes the samples of types that have no file yet. A file that is there is never
//! written again: a shape that changes gets a new version and a conversion, and keeps its sample.

use std::{collections::BTreeSet, fs, path::PathBuf};

use domain::kinds;
use serde_json::{Value, json};

use crate::samples::ALL;

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "events"].iter().collect()
}

#[expect(clippy::disallowed_methods, reason = "a switch of this test, not configuration")]
fn bless() -> bool {
    std::env::var("BLESS").is_ok_and(|value| value == "1")
}

#[test]
fn every_kind_has_samples_of_every_event_type_it_knows() {
    let names: Vec<_> = ALL.iter().map(|one| one.kind).collect();
    assert_eq!(names, kinds::KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>());
    for one in ALL.iter() {
        let sampled: BTreeSet<_> = one.kept.iter().map(|(tag, _)| tag.clone()).collect();
        assert_eq!(sampled, one.types.iter().cloned().collect(), "{}", one.kind);
    }
}

#[test]
fn what_was_written_once_is_read_and_written_the_same() {
    let mut expected = BTreeSet::new();
    for one in ALL.iter() {
        for (tag, data) in &one.kept {
            let name = format!("{}.{tag}.json", one.kind);
            let path = folder().join(&name);
            if bless() && !path.exists() {
                fs::write(&path, serde_json::to_string_pretty(data).unwrap() + "\n").unwrap();
            }
            let text = fs::read_to_string(&path)
                .unwrap_or_else(|_| panic!("{name} is missing: BLESS=1 cargo test -p domain"));
            let stored: Value = serde_json::from_str(&text).unwrap();
            let event = json!({"type": tag, "data": stored});
            let again = (one.again)(&event).unwrap_or_else(|why| panic!("{name}: {why}"));
            assert_eq!(again, event, "{name} does not come out as it went in");
            // And it folds, also without its past.
            let mut state = (kinds::by_name(one.kind).unwrap().empty)();
            state.evolve(tag, text.as_bytes()).unwrap();
            let json = state.json();
            let read = (kinds::by_name(one.kind).unwrap().read)(&json).unwrap();
            assert_eq!(read.json(), json, "{name}: its state is not read back");
            expected.insert(name);
        }
    }
    // A sample of a type that is no longer written stays, and has to be read by something above.
    let files = fs::read_dir(folder()).unwrap();
    let files: BTreeSet<_> =
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(files, expected);
}
