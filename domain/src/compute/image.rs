//! What a server's root disk is made from: a description by which hosts fetch it and verify it.
//!
//! ```text
//!   absent ── define ──► defined ── retire ──► retired
//!                        │    ▲                  │
//!                        └────┴───── define ─────┘
//! ```
//!
//! This is a record. Nothing is fetched when an image is defined: a host that needs it fetches it from
//! its source and takes it only if it has the digest. So an image never changes under its id: other
//! bytes are another image.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::placement::Architecture;
use crate::{
    kernel::{Caller, Decider, Facets, Outstanding, Refusal, Role, Stamp, Verb, codes},
    observation::NoOrder,
    tenancy::check_name,
};

/// Longest address, in bytes.
const URL_BYTES_MAX: usize = 2_048;
/// Largest file: 16 TiB in MiB, the largest that ext4 holds.
const SIZE_MIB_MAX: u64 = 16 * 1_024 * 1_024;
/// Largest disk that an image may ask for: 64 TiB in GiB.
const DISK_GIB_MAX: u64 = 64 * 1_024;

/// Where hosts get an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "ImageSource")]
pub enum Source {
    /// It is brought to the hosts by hand.
    Upload,
    /// By HTTP from this address, `http` or `https`, without a user or password in it, at most 2,048
    /// bytes.
    Url(String),
}

/// How the file is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "ImageFormat")]
pub enum Format {
    /// QEMU's.
    Qcow2,
    /// Block by block.
    Raw,
}

/// What is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Os {
    /// A Linux.
    Linux,
    /// Neither.
    Other,
    /// A Windows.
    Windows,
}

/// What it is started by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// BIOS; on x86_64 alone.
    Bios,
    /// UEFI.
    Uefi,
}

/// What an image is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ImageDefinition")]
pub struct Definition {
    /// What it is called, 1…100 characters.
    pub name: String,
    /// Whose it is; none is the estate's. It stays as it was first said.
    #[serde(default)]
    pub project: Option<Uuid>,
    /// Where hosts get it.
    pub source: Source,
    /// SHA-256 of the file, 64 hexadecimal digits in lower case. It stays as it was first said.
    #[schemars(regex(pattern = "^[0-9a-f]{64}$"))]
    pub sha256: String,
    /// How the file is laid out.
    pub format: Format,
    /// How large the file is, rounded up, 1…16,777,216 MiB.
    pub size_mib: u64,
    /// What it runs on.
    pub architecture: Architecture,
    /// What is in it.
    pub os: Os,
    /// What it is started by.
    pub firmware: Firmware,
    /// The smallest disk it fits on, 1…65,536 GiB.
    pub min_disk_gib: u64,
}

/// A command of an image.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Say what it is: the whole of it.
    Define(Definition),
    /// Make no more servers from it.
    Retire {},
}

/// A fact about an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Event {
    /// It is this from now on, and servers may be made from it.
    Defined(Definition),
    /// No more servers are made from it.
    Retired {},
}

/// What a server's root disk is made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// What it is; none while it does not exist.
    pub definition: Option<Definition>,
    /// Whether no more servers are made from it.
    pub retired: bool,
}

static VERBS: &[Verb] = &[
    Verb {
        name: "define",
        caller: Caller::Person(Role::Operator),
        creates: true,
        summary: "Describes an image: where hosts fetch it, and what they verify.",
    },
    Verb {
        name: "retire",
        caller: Caller::Person(Role::Operator),
        creates: false,
        summary: "Makes no more servers from it.",
    },
];

fn no(detail: String) -> Refusal {
    Refusal::new(&codes::INVALID_FIELD, detail)
}

fn check_url(url: &str) -> Result<(), Refusal> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let Some(rest) = rest else {
        return Err(no("source: begins with https:// or http://".to_owned()));
    };
    if url.len() > URL_BYTES_MAX || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(no(format!("source: has at most {URL_BYTES_MAX} visible ASCII characters")));
    }
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.contains('@') {
        return Err(no("source: holds no user and no password".to_owned()));
    }
    if host.is_empty() || host.starts_with(':') {
        return Err(no("source: names a host".to_owned()));
    }
    Ok(())
}

impl Definition {
    fn check(&self) -> Result<(), Refusal> {
        check_name(&self.name)?;
        if let Source::Url(url) = &self.source {
            check_url(url)?;
        }
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if self.sha256.len() != 64 || !self.sha256.bytes().all(digit) {
            return Err(no("sha256: needs 64 hexadecimal digits in lower case".to_owned()));
        }
        if !(1..=SIZE_MIB_MAX).contains(&self.size_mib) {
            return Err(no(format!("size_mib: is 1 to {SIZE_MIB_MAX}")));
        }
        if !(1..=DISK_GIB_MAX).contains(&self.min_disk_gib) {
            return Err(no(format!("min_disk_gib: is 1 to {DISK_GIB_MAX}")));
        }
        // A raw file is as large as the disk it was made of.
        if self.format == Format::Raw && self.min_disk_gib < self.size_mib.div_ceil(1_024) {
            return Err(no("min_disk_gib: a raw image is as large as its disk".to_owned()));
        }
        if self.firmware == Firmware::Bios && self.architecture != Architecture::X86_64 {
            return Err(no("firmware: only x86_64 has a BIOS".to_owned()));
        }
        Ok(())
    }
}

impl Decider for Image {
    const KIND: &'static str = "image";
    const PLURAL: &'static str = "images";
    const SUMMARY: &'static str = "What a server's root disk is made from.";
    type Command = Command;
    type Event = Event;
    type Order = NoOrder;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command, _: &Stamp) -> Result<Vec<Event>, Refusal> {
        Ok(match (command, &self.definition) {
            (Command::Define(new), known) => {
                new.check()?;
                if let Some(known) = known {
                    if known.sha256 != new.sha256 {
                        let detail = format!("sha256: this is {}", known.sha256);
                        return Err(no(detail));
                    }
                    if known.project != new.project {
                        return Err(no("project: stays as it was first said".to_owned()));
                    }
                }
                let same = known.as_ref() == Some(&new) && !self.retired;
                if same { vec![] } else { vec![Event::Defined(new)] }
            }
            (Command::Retire {}, None) => {
                return Err(Refusal::new(&codes::NOT_FOUND, "there is no such image"));
            }
            (Command::Retire {}, _) if self.retired => vec![],
            (Command::Retire {}, _) => vec![Event::Retired {}],
        })
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::Defined(definition) => Self { definition: Some(definition), retired: false },
            Event::Retired {} => {
                self.retired = true;
                self
            }
        }
    }

    fn order(&self) -> Option<Outstanding<NoOrder>> {
        None
    }

    fn status(&self) -> &'static str {
        match (&self.definition, self.retired) {
            (None, _) => "absent",
            (_, true) => "retired",
            _ => "defined",
        }
    }

    fn facets(&self) -> Facets {
        let definition = self.definition.as_ref();
        Facets {
            name: definition.map(|one| one.name.clone()),
            project: definition.and_then(|one| one.project),
            gone: self.retired,
            ..Facets::default()
        }
    }

    fn claims(&self, events: &[Event]) -> Vec<String> {
        let new = self.definition.is_none();
        let of = |event: &Event| match event {
            Event::Defined(one) => {
                let project = one.project.map_or_else(|| "-".to_owned(), |id| id.to_string());
                Some(format!("image/{project}/{}", one.sha256))
            }
            Event::Retired {} => None,
        };
        events.iter().filter(|_| new).filter_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn definition() -> Definition {
        Definition {
            name: "debian-13".into(),
            project: None,
            source: Source::Url("https://images.example.com/debian-13.qcow2".into()),
            sha256: "0a".repeat(32),
            format: Format::Qcow2,
            size_mib: 400,
            architecture: Architecture::X86_64,
            os: Os::Linux,
            firmware: Firmware::Bios,
            min_disk_gib: 3,
        }
    }

    fn check(given: &[Event], when: Command, then: Result<&[Event], &str>) {
        let state = given.iter().cloned().fold(Image::default(), Decider::evolve);
        let stamp = Stamp { now: DateTime::UNIX_EPOCH, actor: "test".into() };
        let got = state.decide(when, &stamp);
        assert_eq!(got.as_deref().map_err(|no| no.code.code), then);
    }

    #[test]
    fn other_bytes_are_another_image() {
        let one = definition();
        let defined = Event::Defined(one.clone());
        check(&[], Command::Define(one.clone()), Ok(std::slice::from_ref(&defined)));
        check(&[defined.clone()], Command::Define(one.clone()), Ok(&[]));
        let other = Definition { sha256: "0b".repeat(32), ..one.clone() };
        check(&[defined.clone()], Command::Define(other), Err("invalid-field"));
        let moved = Definition { source: Source::Upload, ..one.clone() };
        let then = [Event::Defined(moved.clone())];
        check(&[defined.clone()], Command::Define(moved), Ok(&then));
        let retired = [defined.clone(), Event::Retired {}];
        check(&retired, Command::Retire {}, Ok(&[]));
        check(&retired, Command::Define(one), Ok(&[defined]));
    }

    #[test]
    fn what_no_host_could_fetch_verify_or_start_is_refused() {
        let url = |url: &str| Definition { source: Source::Url(url.into()), ..definition() };
        for odd in [
            url("ftp://images.example.com/a"),
            url("https://ann:secret@images.example.com/a"),
            url("https:///a"),
            url("https://:443/a"),
            url("https://images.example.com/a b"),
            url(&format!("https://images.example.com/{}", "a".repeat(2_048))),
            Definition { sha256: "0A".repeat(32), ..definition() },
            Definition { sha256: "0a".repeat(31), ..definition() },
            Definition { size_mib: 0, ..definition() },
            Definition { min_disk_gib: 0, ..definition() },
            Definition { format: Format::Raw, size_mib: 3_073, ..definition() },
            Definition { architecture: Architecture::Aarch64, ..definition() },
            Definition { name: String::new(), ..definition() },
        ] {
            check(&[], Command::Define(odd), Err("invalid-field"));
        }
        // A path may hold the sign.
        let fine = url("https://images.example.com/a@b?c=@");
        check(&[], Command::Define(fine.clone()), Ok(&[Event::Defined(fine)]));
    }

    #[test]
    fn a_digest_is_one_image_of_a_project() {
        let defined = Event::Defined(definition());
        let claims = Image::default().claims(&[defined.clone()]);
        assert_eq!(claims, [format!("image/-/{}", "0a".repeat(32))]);
        let known = Image::default().evolve(defined.clone());
        assert!(known.claims(&[defined]).is_empty());
    }
}
