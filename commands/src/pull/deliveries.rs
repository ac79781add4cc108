//! Which files of a bucket belong together.
//!
//! AWS writes a bill as `…/data/BILLING_PERIOD=2026-10/…` with a manifest under `…/metadata/…`, and
//! its older reports as `…/20261001-20261101/…` with the manifest beside. A manifest names the files
//! that make the month: it alone says that a file counts no more. What no manifest is about is a
//! delivery of its own, file by file.

use std::collections::{BTreeMap, BTreeSet};

use domain::finops::bill_source::File;

/// What bills' files end in.
pub const ENDINGS: [&str; 4] = [".csv", ".csv.gz", ".csv.zst", ".parquet"];
/// What manifests end in.
const MANIFEST: &str = "manifest.json";

/// A file, and when it was written.
pub(super) type Listed = (File, String);

/// Files that are one bill's, or what stands in the way of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    /// Its name: what its lines are said to come from.
    pub(super) name: String,
    /// Its files, by key; the manifest is not among them.
    pub(super) files: Vec<File>,
    /// Its manifest, where it has one.
    pub(super) manifest: Option<File>,
    /// Why it cannot be read as it lies there: a word and a sentence.
    pub(super) flaw: Option<(&'static str, String)>,
}

impl Delivery {
    /// Everything that it depends on, by key.
    pub(super) fn all(&self) -> Vec<File> {
        let mut all: Vec<File> = self.files.iter().chain(&self.manifest).cloned().collect();
        all.sort_unstable();
        all
    }
}

pub(super) fn is_bill(key: &str) -> bool {
    let key = key.to_lowercase();
    ENDINGS.iter().any(|ending| key.ends_with(ending))
}

fn is_manifest(key: &str) -> bool {
    key.to_lowercase().ends_with(MANIFEST)
}

/// Whether a folder is called by the days of a month.
fn is_period(folder: &str) -> bool {
    let digits = |text: &str| text.len() == 8 && text.bytes().all(|one| one.is_ascii_digit());
    let month = |text: &str| {
        text.len() == 7 && text.as_bytes()[4] == b'-' && text[..4].parse::<u16>().is_ok()
    };
    match folder.split_once('=') {
        Some((name, value)) => {
            name.eq_ignore_ascii_case("BILLING_PERIOD") && value.is_ascii() && month(value)
        }
        None => folder.split_once('-').is_some_and(|(from, to)| digits(from) && digits(to)),
    }
}

/// What of a key is the same for all that is of one report and month: without `data` and `metadata`,
/// up to the folder of the month. None when it lies in no such folder.
fn month_of(key: &str) -> Option<String> {
    let folders: Vec<&str> = key.split('/').collect();
    let period = folders.iter().position(|folder| is_period(folder))?;
    let mut folders = folders[..=period].to_vec();
    if period > 0 && matches!(folders[period - 1], "data" | "metadata") {
        folders.remove(period - 1);
    }
    Some(folders.join("/"))
}

/// The manifest of each month: of several the one that lies highest, then the newest. Older ones of
/// the same month lie deeper, or are older.
pub(super) fn manifests(listed: &[Listed]) -> BTreeMap<String, File> {
    let mut found: BTreeMap<String, (usize, &Listed)> = BTreeMap::new();
    for one in listed.iter().filter(|(file, _)| is_manifest(&file.key)) {
        let Some(month) = month_of(&one.0.key) else { continue };
        let depth = one.0.key.matches('/').count();
        let rank = |(depth, listed): (usize, &Listed)| {
            (std::cmp::Reverse(depth), listed.1.clone(), listed.0.key.clone())
        };
        let better = found.get(&month).is_none_or(|kept| rank((depth, one)) > rank(*kept));
        if better {
            found.insert(month, (depth, one));
        }
    }
    found.into_iter().map(|(month, (_, (file, _)))| (month, file.clone())).collect()
}

/// The keys that a manifest names, or why it does not read.
pub(super) fn named(manifest: &[u8], bucket: &str) -> Result<BTreeSet<String>, String> {
    let read: serde_json::Value =
        serde_json::from_slice(manifest).map_err(|error| format!("it is not JSON: {error}"))?;
    let files = ["dataFiles", "reportKeys"].iter().find_map(|name| read[*name].as_array());
    let files = files.ok_or("it has neither dataFiles nor reportKeys")?;
    let own = format!("s3://{bucket}/");
    let key = |file: &serde_json::Value| {
        let file = file.as_str().ok_or("one of its files has no name")?;
        match file.strip_prefix(&own) {
            Some(key) => Ok(key.to_owned()),
            None if file.contains("://") => Err("one of its files lies in another bucket"),
            None => Ok(file.trim_start_matches('/').to_owned()),
        }
    };
    let keys = files.iter().map(key).collect::<Result<BTreeSet<_>, _>>()?;
    if keys.is_empty() {
        return Err("it names no file".to_owned());
    }
    Ok(keys)
}

/// What lies there, as deliveries by name. What a manifest of a month does not name is left out.
pub(super) fn deliveries(
    base: &str,
    listed: &[Listed],
    manifests: &BTreeMap<String, (File, Result<BTreeSet<String>, String>)>,
) -> Vec<Delivery> {
    let bills: BTreeMap<&str, &File> = listed
        .iter()
        .filter(|(file, _)| is_bill(&file.key))
        .map(|(file, _)| (&*file.key, file))
        .collect();
    let mut all: Vec<Delivery> = manifests
        .iter()
        .map(|(month, (manifest, keys))| {
            let name = format!("{base}/{month}");
            let manifest = manifest.clone();
            let about = &manifest.key;
            let (files, flaw) = match keys {
                Err(why) => (vec![], Some(("manifest-unreadable", format!("{about}: {why}")))),
                Ok(keys) => match keys.iter().find(|key| !bills.contains_key(key.as_str())) {
                    Some(key) => {
                        let what = format!("{about} names {key}, which is not there");
                        (vec![], Some(("manifest-incomplete", what)))
                    }
                    None => {
                        let files = keys.iter().filter_map(|key| bills.get(key.as_str()));
                        (files.map(|file| (*file).clone()).collect(), None)
                    }
                },
            };
            Delivery { name, files, manifest: Some(manifest), flaw }
        })
        .collect();
    let alone = bills
        .values()
        .filter(|file| month_of(&file.key).is_none_or(|month| !manifests.contains_key(&month)));
    all.extend(alone.map(|file| Delivery {
        name: format!("{base}/{}", file.key),
        files: vec![(*file).clone()],
        manifest: None,
        flaw: None,
    }));
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(key: &str) -> Listed {
        (File { key: key.into(), bytes: 1, etag: "e".into() }, "2026-11-02T00:00:00Z".into())
    }

    fn grouped(keys: &[&str], manifest: &str) -> Vec<(String, Vec<String>, Option<&'static str>)> {
        let all: Vec<Listed> = keys.iter().map(|key| listed(key)).collect();
        let named = |file: &File| (file.clone(), named(manifest.as_bytes(), "b"));
        let manifests = manifests(&all);
        let manifests =
            manifests.iter().map(|(month, file)| (month.clone(), named(file))).collect();
        let shown = |one: Delivery| {
            let keys = one.files.into_iter().map(|file| file.key).collect();
            (one.name, keys, one.flaw.map(|(code, _)| code))
        };
        deliveries("s3://b", &all, &manifests).into_iter().map(shown).collect()
    }

    #[test]
    fn an_export_of_aws_is_what_its_manifest_names() {
        let keys = [
            "x/data/BILLING_PERIOD=2026-10/e-1.csv.gz",
            "x/data/BILLING_PERIOD=2026-10/e-2.csv.gz",
            "x/data/BILLING_PERIOD=2026-10/old/e-1.csv.gz",
            "x/data/BILLING_PERIOD=2026-11/e-1.csv.gz",
            "x/metadata/BILLING_PERIOD=2026-10/e-Manifest.json",
            "x/metadata/BILLING_PERIOD=2026-10/old/e-Manifest.json",
            "x/readme.txt",
        ];
        let manifest = r#"{"dataFiles": ["s3://b/x/data/BILLING_PERIOD=2026-10/e-2.csv.gz",
            "s3://b/x/data/BILLING_PERIOD=2026-10/e-1.csv.gz"]}"#;
        let october = (
            "s3://b/x/BILLING_PERIOD=2026-10".to_owned(),
            vec![keys[0].to_owned(), keys[1].to_owned()],
            None,
        );
        let november = (format!("s3://b/{}", keys[3]), vec![keys[3].to_owned()], None);
        assert_eq!(grouped(&keys, manifest), [october, november]);
    }

    #[test]
    fn an_older_report_has_its_manifest_beside_its_folders() {
        let keys = [
            "r/20261001-20261101/a1/r-1.csv.gz",
            "r/20261001-20261101/a1/r-Manifest.json",
            "r/20261001-20261101/a2/r-1.csv.gz",
            "r/20261001-20261101/r-Manifest.json",
        ];
        let manifest = r#"{"bucket": "b", "reportKeys": ["r/20261001-20261101/a2/r-1.csv.gz"]}"#;
        let one = ("s3://b/r/20261001-20261101".to_owned(), vec![keys[2].to_owned()], None);
        assert_eq!(grouped(&keys, manifest), [one]);
    }

    #[test]
    fn of_manifests_as_deep_the_newest_counts() {
        let at = |key: &str, time: &str| (listed(key).0, time.to_owned());
        let all = [
            at("x/metadata/BILLING_PERIOD=2026-10/t2/e-Manifest.json", "2026-11-03T00:00:00Z"),
            at("x/metadata/BILLING_PERIOD=2026-10/t1/e-Manifest.json", "2026-11-02T00:00:00Z"),
        ];
        let keys: Vec<String> = manifests(&all).into_values().map(|one| one.key).collect();
        assert_eq!(keys, [all[0].0.key.clone()]);
    }

    #[test]
    fn a_manifest_that_does_not_read_or_names_what_is_not_there_lets_nothing_be_read() {
        let keys = ["x/BILLING_PERIOD=2026-10/1.csv", "x/BILLING_PERIOD=2026-10/Manifest.json"];
        for (manifest, code) in [
            ("<html>", "manifest-unreadable"),
            ("{}", "manifest-unreadable"),
            (r#"{"dataFiles": []}"#, "manifest-unreadable"),
            (r#"{"dataFiles": ["s3://other/1.csv"]}"#, "manifest-unreadable"),
            (r#"{"dataFiles": ["x/BILLING_PERIOD=2026-10/2.csv"]}"#, "manifest-incomplete"),
        ] {
            let all = grouped(&keys, manifest);
            assert_eq!(all, [("s3://b/x/BILLING_PERIOD=2026-10".to_owned(), vec![], Some(code))]);
        }
    }
}
