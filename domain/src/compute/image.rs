//! What a server's root disk is made from: a description by which hosts fetch it and verify it.
//!
//! ```text
//!   absent ── define ──► defined ── retire ──► retired
//!                        │    ▲                  │
//!                        └────┴───── define ─────┘
//! ```
//!
//! Nothing is fetched when an image is defined: a host that needs it fetches it from its source and
//! takes it only if it has the digest. So an image never changes under its id: other bytes are another
//! image.
//!
//! One whose file is uploaded lies in a backup store, and is used when all of the file is there and was
//! found to be what was described:
//!
//! ```text
//!   absent ── define ──► awaiting ── confirm-upload ──► defined
//!                         ▲  │                             │ retire
//!                  define │  └───────── retire ──────► removing ── confirm-removal ──► retired
//!                         └────────────────────────────────────────────────────────────────┘
//! ```
//!
//! What was uploaded goes when no order needs it any more.
//!
//! One that is made from a disk, or from a backup of one, lies there as well. Of a disk a backup is made
//! first, which goes when the image is there; what the image is, its digest above all, is known then:
//!
//! ```text
//!   absent ── define ──► making ── confirm-made ──► defined ── retire ──► removing ──► retired
//!                          │ retire, abandon                                ▲
//!                          └────────────────────────────────────────────────┘
//! ```

pub mod file;
pub mod header;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::{
    backup::{self, Backup},
    placement::Architecture,
};
use crate::{
    kernel::{Companion, Decider, Facets, Orders, Outstanding, Refusal, Stamp, Verb, codes},
    tenancy::check_name,
};

/// Longest address, in bytes.
const URL_BYTES_MAX: usize = 2_048;
/// Largest file: 16 TiB in MiB, the largest that ext4 holds.
const SIZE_MIB_MAX: u64 = 16 * 1_024 * 1_024;
/// Largest disk that an image may ask for: 64 TiB in GiB.
const DISK_GIB_MAX: u64 = 64 * 1_024;
/// Largest file that is uploaded: 128 GiB in MiB. A store takes 10,000 parts, which have 16 MiB.
pub const UPLOAD_MIB_MAX: u64 = 128 * 1_024;

/// Where hosts get an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "ImageSource")]
pub enum Source {
    /// It is made from this backup, and lies where that lies. It stays as it was first said.
    Backup(Uuid),
    /// It is made from what a disk of ours has now. It stays as it was first said.
    Disk(OfDisk),
    /// It is uploaded, and lies in this backup store: hosts get it from there. It stays as it was first
    /// said.
    Store(Uuid),
    /// It is brought to the hosts by hand.
    Upload,
    /// By HTTP from this address, `http` or `https`, without a user or password in it, at most 2,048
    /// bytes.
    Url(String),
}

/// A disk of ours, and where an image that is made from it is to lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ImageOfDisk")]
pub struct OfDisk {
    /// The disk, of a server that runs or not.
    pub disk: Uuid,
    /// The backup store.
    pub store: Uuid,
}

/// What an image is made from, looked up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ImageFound")]
pub struct Found {
    /// The image's own id.
    pub id: Uuid,
    /// The backup.
    pub backup: Uuid,
    /// Where that lies, and the image is to.
    pub store: Uuid,
    /// How the backup is made, where it is made for the image alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation: Option<Box<backup::Creation>>,
}

/// How the file is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "ImageFormat")]
pub enum Format {
    /// A disc, for a server's drive (ISO 9660): no disk is made from it.
    Iso,
    /// A disk, as QEMU lays it out.
    Qcow2,
    /// A disk, block by block.
    Raw,
    /// A disk of Virtual PC or Hyper-V, of fixed size or not, that is whole in its file. Hosts keep it as qcow2.
    Vhd,
    /// A disk of Hyper-V that is whole in its file. Hosts keep it as qcow2.
    Vhdx,
    /// A disk of VMware that is whole in one file (`monolithicSparse`, `streamOptimized`). Hosts keep it as qcow2.
    Vmdk,
}

impl Format {
    /// As it is said.
    pub fn name(self) -> &'static str {
        match self {
            Self::Iso => "iso",
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
            Self::Vhd => "vhd",
            Self::Vhdx => "vhdx",
            Self::Vmdk => "vmdk",
        }
    }
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
    /// SHA-256 of the file, 64 hexadecimal digits in lower case. It stays as it was first said. Found out,
    /// and left out, where the image is made from a disk or a backup.
    #[serde(default)]
    #[schemars(regex(pattern = "^([0-9a-f]{64})?$"))]
    pub sha256: String,
    /// How the file is laid out; qcow2 where the image is made from a disk or a backup.
    #[serde(default = "qcow2")]
    pub format: Format,
    /// How large the file is, rounded up, 1…16,777,216 MiB. Found out, and left out, where the image is made
    /// from a disk or a backup.
    #[serde(default)]
    pub size_mib: u64,
    /// What it runs on.
    pub architecture: Architecture,
    /// What is in it.
    pub os: Os,
    /// What it is started by.
    pub firmware: Firmware,
    /// The smallest disk it fits on, 1…65,536 GiB; of a disc, that what it installs fits on. As large as the
    /// disk where the image is made from one and this is left out.
    #[serde(default)]
    pub min_disk_gib: u64,
    /// Filled in by Skyledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Found>,
}

fn qcow2() -> Format {
    Format::Qcow2
}

/// What an image can wait for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
#[schemars(rename = "ImageOrder")]
pub enum Order {
    /// Make its file from its backup, when that is there.
    Make {},
    /// Leave nothing of its file in the store.
    Remove {},
}

/// A file that was uploaded and found to be what was described, or was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ImageFile")]
pub struct Uploaded {
    /// How large the file is, in bytes.
    pub size_bytes: u64,
    /// How large the disk is that it holds, in bytes.
    pub disk_bytes: u64,
}

/// A command of an image.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Give up the order that is parked: what is left in the store goes when the store is collected.
    Abandon {},
    /// Its file was made, and is in the store.
    ConfirmMade {
        /// The order's number.
        number: u64,
        /// SHA-256 of the file.
        sha256: String,
        /// What it is.
        file: Uploaded,
    },
    /// Its file is in the store no more.
    ConfirmRemoval {
        /// The order's number.
        number: u64,
    },
    /// Its file is in the store, and is what was described.
    ConfirmUpload {
        /// Who has uploaded it.
        by: String,
        /// What it was found to be.
        file: Uploaded,
    },
    /// Say what it is: the whole of it.
    Define(Definition),
    /// The runner gives up until a person decides.
    Park {
        /// The order's number.
        number: u64,
        /// What stood in the way.
        reason: String,
    },
    /// Make no more servers from it. What was uploaded is removed.
    Retire {},
    /// Go on with the order that is parked.
    Retry {},
}

/// A fact about an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Event {
    /// A parked order was given up.
    Abandoned {},
    /// It is this from now on, and servers may be made from it: at once, or when its file is uploaded.
    Defined(Definition),
    /// Its file was made, is in the store, and servers may be made from it.
    Made {
        /// The order's number.
        number: u64,
        /// When.
        at: DateTime<Utc>,
        /// SHA-256 of the file.
        sha256: String,
        /// What it is.
        file: Uploaded,
    },
    /// The runner gave up until a person decides.
    Parked {
        /// The order's number.
        number: u64,
        /// What stood in the way.
        reason: String,
    },
    /// Its file is to be removed.
    RemovalOrdered {},
    /// Its file is in the store no more.
    Removed {
        /// The order's number.
        number: u64,
    },
    /// No more servers are made from it.
    Retired {},
    /// A parked order goes on.
    RetryOrdered {},
    /// Its file is in the store, and servers may be made from it.
    Uploaded {
        /// When.
        at: DateTime<Utc>,
        /// Who has uploaded it.
        by: String,
        /// What it was found to be.
        file: Uploaded,
    },
}

/// What a server's root disk is made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// What it is; none while it does not exist.
    pub definition: Option<Definition>,
    /// Whether no more servers are made from it.
    pub retired: bool,
    /// Its file; none while it is not uploaded or made, and of images that are fetched from elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<Uploaded>,
    /// When its file was uploaded or made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uploaded_at: Option<DateTime<Utc>>,
    /// What is wanted of it.
    #[serde(default)]
    pub orders: Orders<Order>,
}

static VERBS: &[Verb] = &[
    Verb::operator("abandon", "Gives up the parked order; one that was to be made is retired."),
    Verb::system("confirm-made", "Reports that its file was made, and is in the store."),
    Verb::system("confirm-removal", "Reports that its file is in the store no more."),
    Verb::system(
        "confirm-upload",
        "Reports that its file is in the store, and is what was described.",
    ),
    Verb::operator(
        "define",
        "Describes an image: where hosts fetch it and what they verify, or what it is made from.",
    )
    .creating(),
    Verb::system("park", "Reports that an order keeps failing."),
    Verb::operator("retire", "Makes no more servers from it; what was uploaded is removed."),
    Verb::operator("retry", "Goes on with the parked order."),
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
    /// Whether it is made here, from a backup.
    pub fn is_made(&self) -> bool {
        matches!(self.source, Source::Backup(_) | Source::Disk(_))
    }

    /// Where its file is had from when it is there.
    pub fn lies(&self) -> Source {
        match (&self.source, &self.found) {
            (Source::Backup(_) | Source::Disk(_), Some(found)) => Source::Store(found.store),
            (source, _) => source.clone(),
        }
    }

    /// The same as it is known after it was made, where nothing else is said.
    fn made_as(mut self, known: &Self) -> Self {
        if self.is_made() && self.source == known.source {
            if self.sha256.is_empty() {
                self.sha256.clone_from(&known.sha256);
            }
            for (new, known) in
                [(&mut self.size_mib, known.size_mib), (&mut self.min_disk_gib, known.min_disk_gib)]
            {
                *new = if *new == 0 { known } else { *new };
            }
            self.found.clone_from(&known.found);
        }
        self
    }

    /// One that is to be made: what is found out is not said.
    fn check_unmade(&self) -> Result<(), Refusal> {
        check_name(&self.name)?;
        if !self.sha256.is_empty() || self.size_mib != 0 || self.format != Format::Qcow2 {
            let detail =
                "sha256, size_mib: are found out when it is made, as qcow2; leave them out";
            return Err(no(detail.to_owned()));
        }
        if self.min_disk_gib > DISK_GIB_MAX {
            return Err(no(format!("min_disk_gib: is 1 to {DISK_GIB_MAX}")));
        }
        if self.found.is_none() {
            return Err(no("found: nobody looked what it is made from".to_owned()));
        }
        self.check_firmware()
    }

    fn check_firmware(&self) -> Result<(), Refusal> {
        if self.firmware == Firmware::Bios && self.architecture != Architecture::X86_64 {
            return Err(no("firmware: only x86_64 has a BIOS".to_owned()));
        }
        Ok(())
    }

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
        if matches!(self.source, Source::Store(_)) && self.size_mib > UPLOAD_MIB_MAX {
            return Err(no(format!("size_mib: at most {UPLOAD_MIB_MAX} are uploaded")));
        }
        if !(1..=DISK_GIB_MAX).contains(&self.min_disk_gib) {
            return Err(no(format!("min_disk_gib: is 1 to {DISK_GIB_MAX}")));
        }
        // A raw file is as large as the disk it was made of.
        if self.format == Format::Raw && self.min_disk_gib < self.size_mib.div_ceil(1_024) {
            return Err(no("min_disk_gib: a raw image is as large as its disk".to_owned()));
        }
        self.check_firmware()
    }
}

impl Image {
    /// The store that its file lies in, or is to; none of one that is fetched from elsewhere.
    pub fn store(&self) -> Option<Uuid> {
        match self.definition.as_ref()?.lies() {
            Source::Store(store) => Some(store),
            _ => None,
        }
    }

    /// Whether its file is to be made.
    fn is_making(&self) -> bool {
        self.orders.has_out(&Order::Make {})
    }

    /// What it is, if servers can be made from it.
    ///
    /// # Errors
    /// `invalid-field`: it is retired; `wrong-state`: its file is not uploaded yet.
    pub fn ensure_usable(&self) -> Result<&Definition, Refusal> {
        let definition = self.definition.as_ref().filter(|_| !self.retired);
        let definition = definition.ok_or_else(|| no("image: it is retired".to_owned()))?;
        if self.store().is_some() && self.file.is_none() {
            let how = if definition.is_made() { "it is being made" } else { "upload it first" };
            let detail = format!("image {} waits for its file: {how}", definition.name);
            return Err(Refusal::new(&codes::WRONG_STATE, detail));
        }
        Ok(definition)
    }

    /// What its file is to be, if it can be uploaded: none when it was.
    ///
    /// # Errors
    /// `not-found`; `wrong-state`: it is retired, or fetched from elsewhere.
    pub fn ensure_awaiting(&self) -> Result<Option<(&Definition, Uuid)>, Refusal> {
        let Some(definition) = &self.definition else {
            return Err(Refusal::new(&codes::NOT_FOUND, "there is no such image"));
        };
        if self.retired {
            return Err(Refusal::wrong_state("an upload", Decider::status(self)));
        }
        let Some(store) = self.store().filter(|_| !definition.is_made()) else {
            let detail = "its file is fetched from elsewhere: define it with a store as its source";
            return Err(Refusal::new(&codes::WRONG_STATE, detail));
        };
        Ok(self.file.is_none().then_some((definition, store)))
    }

    fn define(&self, new: Definition) -> Result<Vec<Event>, Refusal> {
        let new = match &self.definition {
            None => new,
            Some(known) => new.made_as(known),
        };
        // What is made is known when it is there.
        if new.is_made() && self.file.is_none() {
            if self.definition.is_some() {
                return Err(Refusal::wrong_state("define", Decider::status(self)));
            }
            new.check_unmade()?;
        } else {
            new.check()?;
        }
        if let Some(known) = &self.definition {
            if known.sha256 != new.sha256 {
                return Err(no(format!("sha256: this is {}", known.sha256)));
            }
            if known.project != new.project {
                return Err(no("project: stays as it was first said".to_owned()));
            }
            let stored = |one: &Definition| matches!(one.lies(), Source::Store(_));
            if known.source != new.source && (stored(known) || stored(&new)) {
                let detail =
                    "source: what lies in a store stays there, and nothing comes there later";
                return Err(no(detail.to_owned()));
            }
            let disk_bytes = self.file.as_ref().map_or(0, |file| file.disk_bytes);
            check_disk(&new, disk_bytes)?;
            self.orders.ensure_free()?;
        }
        let same = self.definition.as_ref() == Some(&new) && !self.retired;
        Ok(if same { vec![] } else { vec![Event::Defined(new)] })
    }

    fn retire(&self) -> Result<Vec<Event>, Refusal> {
        if self.definition.is_none() {
            return Err(Refusal::new(&codes::NOT_FOUND, "there is no such image"));
        }
        if self.retired {
            return Ok(vec![]);
        }
        // Also when nothing was uploaded yet: somebody may be at it.
        let removal = self.store().map(|_| Event::RemovalOrdered {});
        Ok(std::iter::once(Event::Retired {}).chain(removal).collect())
    }
}

/// Whether the smallest disk that an image asks for has room for the one that its file holds.
///
/// # Errors
/// `invalid-field`.
pub fn check_disk(definition: &Definition, disk_bytes: u64) -> Result<(), Refusal> {
    let needs = disk_bytes.div_ceil(1 << 30);
    if needs > definition.min_disk_gib {
        return Err(no(format!("min_disk_gib: the disk in its file has {needs} GiB")));
    }
    Ok(())
}

impl Decider for Image {
    const KIND: &'static str = "image";
    const PLURAL: &'static str = "images";
    const SUMMARY: &'static str = "What a server's root disk is made from.";
    type Command = Command;
    type Event = Event;
    type Order = Order;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command, stamp: &Stamp) -> Result<Vec<Event>, Refusal> {
        Ok(match command {
            Command::Abandon {} => {
                self.orders.ensure_parked()?;
                if self.is_making() {
                    // Of a file that may be there nobody knows what it is.
                    return Ok(vec![
                        Event::Abandoned {},
                        Event::Retired {},
                        Event::RemovalOrdered {},
                    ]);
                }
                vec![Event::Abandoned {}]
            }
            Command::ConfirmMade { number, sha256, file }
                if self.orders.is_out_as(number, &Order::Make {}) =>
            {
                vec![Event::Made { number, at: stamp.now, sha256, file }]
            }
            Command::ConfirmRemoval { number } if self.orders.is_out(number) => {
                vec![Event::Removed { number }]
            }
            Command::ConfirmUpload { by, file } => match self.ensure_awaiting()? {
                Some((definition, _)) => {
                    check_disk(definition, file.disk_bytes)?;
                    vec![Event::Uploaded { at: stamp.now, by, file }]
                }
                None => vec![],
            },
            Command::Define(new) => self.define(new)?,
            Command::Park { number, reason } if self.orders.is_worked_on(number) => {
                vec![Event::Parked { number, reason }]
            }
            Command::Retire {} => self.retire()?,
            Command::Retry {} => {
                self.orders.ensure_parked()?;
                vec![Event::RetryOrdered {}]
            }
            // A report about an order that is settled already says nothing new.
            Command::ConfirmMade { .. } | Command::ConfirmRemoval { .. } | Command::Park { .. } => {
                vec![]
            }
        })
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::Abandoned {} | Event::Removed { .. } => self.orders.settle(),
            Event::Defined(definition) => {
                if definition.is_made() && self.file.is_none() {
                    self.orders.issue(Order::Make {});
                }
                self.definition = Some(definition);
                self.retired = false;
            }
            Event::Made { at, sha256, file, .. } => {
                if let Some(definition) = &mut self.definition {
                    definition.sha256 = sha256;
                    definition.size_mib = file.size_bytes.div_ceil(1 << 20);
                    let least = file.disk_bytes.div_ceil(1 << 30);
                    definition.min_disk_gib = definition.min_disk_gib.max(least);
                }
                (self.file, self.uploaded_at) = (Some(file), Some(at));
                self.orders.settle();
            }
            Event::Parked { reason, .. } => self.orders.park(reason),
            Event::RemovalOrdered {} => {
                (self.file, self.uploaded_at) = (None, None);
                self.orders.issue(Order::Remove {});
            }
            Event::Retired {} => self.retired = true,
            Event::RetryOrdered {} => self.orders.retry(),
            Event::Uploaded { at, file, .. } => {
                (self.file, self.uploaded_at) = (Some(file), Some(at));
            }
        }
        self
    }

    fn order(&self) -> Option<Outstanding<Order>> {
        self.orders.out.clone()
    }

    fn status(&self) -> &'static str {
        match (&self.definition, &self.orders.out) {
            (None, _) => "absent",
            (_, Some(Outstanding { parked: Some(_), .. })) => "parked",
            (_, Some(Outstanding { order: Order::Make {}, .. })) => "making",
            (_, Some(_)) => "removing",
            _ if self.retired => "retired",
            _ if self.store().is_some() && self.file.is_none() => "awaiting",
            _ => "defined",
        }
    }

    fn facets(&self) -> Facets {
        let definition = self.definition.as_ref();
        Facets {
            name: definition.map(|one| one.name.clone()),
            project: definition.and_then(|one| one.project),
            gone: self.retired && self.orders.out.is_none(),
            ..Facets::default()
        }
    }

    fn companions(&self, events: &[Event]) -> Vec<Companion> {
        let of = |event: &Event| {
            let (found, first) = match event {
                Event::Defined(definition) => {
                    (definition.found.as_ref()?, self.definition.is_none())
                }
                Event::Made { .. } | Event::Retired {} => {
                    (self.definition.as_ref()?.found.as_ref()?, self.is_making())
                }
                _ => return None,
            };
            let begins = matches!(event, Event::Defined(_));
            let (verb, body) = match &found.creation {
                _ if !first => return None,
                Some(creation) if begins => ("create", json!(creation)),
                None if begins => ("begin-use", json!({"by": found.id})),
                // What was made for it alone goes with that.
                made => ("end-use", json!({"by": found.id, "delete": made.is_some()})),
            };
            Some(Companion { kind: Backup::KIND, id: found.backup, verb, body })
        };
        events.iter().filter_map(of).collect()
    }

    fn claims(&self, events: &[Event]) -> Vec<String> {
        let new = self.definition.is_none();
        let of = |event: &Event| match event {
            // What is made has no digest yet.
            Event::Defined(one) if !one.is_made() => {
                let project = one.project.map_or_else(|| "-".to_owned(), |id| id.to_string());
                Some(format!("image/{project}/{}", one.sha256))
            }
            _ => None,
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
            found: None,
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
    fn what_is_uploaded_is_used_when_it_is_there_and_goes_when_it_is_retired() {
        let store = Uuid::from_u128(7);
        let one = Definition { source: Source::Store(store), ..definition() };
        let mut given = vec![Event::Defined(one.clone())];
        let file = Uploaded { size_bytes: 400 << 20, disk_bytes: 2 << 30 };
        let by = "ann".to_owned();
        let at = DateTime::UNIX_EPOCH;
        let uploaded = Event::Uploaded { at, by: by.clone(), file: file.clone() };
        let usable = |given: &[Event]| {
            let state = given.iter().cloned().fold(Image::default(), Decider::evolve);
            (state.status(), state.ensure_usable().map(drop).map_err(|no| no.code.code))
        };
        assert_eq!(usable(&given), ("awaiting", Err("wrong-state")));
        let large = Uploaded { disk_bytes: (3 << 30) + 1, ..file.clone() };
        let large = Command::ConfirmUpload { by: by.clone(), file: large };
        check(&given, large, Err("invalid-field"));
        let confirm = Command::ConfirmUpload { by, file };
        check(&given, confirm.clone(), Ok(std::slice::from_ref(&uploaded)));
        given.push(uploaded.clone());
        check(&given, confirm.clone(), Ok(&[]));
        assert_eq!(usable(&given), ("defined", Ok(())));
        let elsewhere = Definition { source: Source::Upload, ..one.clone() };
        check(&given, Command::Define(elsewhere), Err("invalid-field"));
        let small = Definition { min_disk_gib: 1, ..one.clone() };
        check(&given, Command::Define(small), Err("invalid-field"));
        let gone = [Event::Retired {}, Event::RemovalOrdered {}];
        check(&given, Command::Retire {}, Ok(&gone));
        given.extend(gone);
        assert_eq!(usable(&given), ("removing", Err("invalid-field")));
        check(&given, confirm, Err("wrong-state"));
        check(&given, Command::Define(one.clone()), Err("order-outstanding"));
        check(&given, Command::ConfirmRemoval { number: 2 }, Ok(&[]));
        let removed = Event::Removed { number: 1 };
        check(&given, Command::ConfirmRemoval { number: 1 }, Ok(std::slice::from_ref(&removed)));
        given.push(removed);
        assert_eq!(usable(&given), ("retired", Err("invalid-field")));
        check(&given, Command::Define(one.clone()), Ok(&[Event::Defined(one.clone())]));
        given.push(Event::Defined(one.clone()));
        assert_eq!(usable(&given).0, "awaiting", "its file is not there any more");
        let huge = Definition { size_mib: UPLOAD_MIB_MAX + 1, min_disk_gib: 200, ..one };
        check(&[], Command::Define(huge), Err("invalid-field"));
    }

    #[test]
    fn a_digest_is_one_image_of_a_project() {
        let defined = Event::Defined(definition());
        let claims = Image::default().claims(&[defined.clone()]);
        assert_eq!(claims, [format!("image/-/{}", "0a".repeat(32))]);
        let known = Image::default().evolve(defined.clone());
        assert!(known.claims(&[defined]).is_empty());
    }

    /// One of a disk, as it is asked for and looked up.
    fn made(creation: bool) -> Definition {
        let (id, backup, store) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
        let disk = Uuid::from_u128(4);
        let creation = creation.then(|| {
            let (name, found) = ("for image golden".to_owned(), None);
            Box::new(backup::Creation { name, disk, store, parent: None, plan: None, found })
        });
        let source = match creation {
            Some(_) => Source::Disk(OfDisk { disk, store }),
            None => Source::Backup(backup),
        };
        Definition {
            name: "golden".into(),
            source,
            sha256: String::new(),
            size_mib: 0,
            min_disk_gib: 0,
            found: Some(Found { id, backup, store, creation }),
            ..definition()
        }
    }

    #[test]
    fn what_is_made_from_a_disk_is_known_when_it_is_there_and_its_backup_goes() {
        let stamp = Stamp { now: DateTime::UNIX_EPOCH, actor: "test".into() };
        for creation in [false, true] {
            let mut image = Image::default();
            let mut say = |command: Command| {
                let events = image.decide(command, &stamp).map_err(|no| no.code.code)?;
                let told = image.companions(&events);
                let told: Vec<_> = told.into_iter().map(|one| (one.verb, one.body)).collect();
                image = events.into_iter().fold(std::mem::take(&mut image), Decider::evolve);
                Ok::<_, &str>((told, image.status(), image.ensure_usable().is_ok()))
            };
            let one = made(creation);
            let begins = match &one.found.as_ref().unwrap().creation {
                Some(creation) => ("create", json!(creation)),
                None => ("begin-use", json!({"by": Uuid::from_u128(1)})),
            };
            let told = say(Command::Define(one.clone())).unwrap();
            assert_eq!(told, (vec![begins], "making", false));
            assert_eq!(say(Command::Define(one.clone())), Err("wrong-state"), "it is being made");
            let file = Uploaded { size_bytes: (400 << 20) + 1, disk_bytes: (2 << 30) + 1 };
            let made = |number: u64| Command::ConfirmMade {
                number,
                sha256: "0c".repeat(32),
                file: file.clone(),
            };
            assert_eq!(say(made(7)).unwrap().0, []);
            let ends = ("end-use", json!({"by": Uuid::from_u128(1), "delete": creation}));
            assert_eq!(say(made(1)).unwrap(), (vec![ends.clone()], "defined", true));
            assert_eq!(say(made(1)).unwrap(), (vec![], "defined", true), "twice is once");
            let renamed = Definition { name: "silver".into(), found: None, ..one.clone() };
            assert_eq!(say(Command::Define(renamed)).unwrap(), (vec![], "defined", true));
            let small = Definition { min_disk_gib: 2, ..one.clone() };
            assert_eq!(say(Command::Define(small)), Err("invalid-field"));
            assert_eq!(say(Command::Retire {}).unwrap(), (vec![], "removing", false));
            let known = image.definition.unwrap();
            assert_eq!((known.size_mib, known.min_disk_gib), (401, 3));
            assert_eq!(
                (known.lies(), known.sha256),
                (Source::Store(Uuid::from_u128(3)), "0c".repeat(32))
            );

            // Given up, or retired meanwhile, it is none, and the backup is needed no more.
            let parked = Command::Park { number: 1, reason: "damaged".into() };
            for end in [vec![parked, Command::Abandon {}], vec![Command::Retire {}]] {
                let mut state = Image::default();
                let mut told = Vec::new();
                for command in std::iter::once(Command::Define(one.clone())).chain(end) {
                    let events = state.decide(command, &stamp).unwrap();
                    told.extend(
                        state.companions(&events).into_iter().map(|one| (one.verb, one.body)),
                    );
                    state = events.into_iter().fold(state, Decider::evolve);
                }
                assert_eq!((told.len(), told.last()), (2, Some(&ends)));
                assert_eq!((state.status(), state.retired), ("removing", true));
                let removed = Command::ConfirmRemoval { number: 2 };
                let events = state.decide(removed, &stamp).unwrap();
                let state = events.into_iter().fold(state, Decider::evolve);
                assert_eq!(state.status(), "retired");
                let again = state.decide(Command::Define(one.clone()), &stamp);
                assert_eq!(again.unwrap_err().code.code, "wrong-state");
            }
        }
        let said = Definition { sha256: "0a".repeat(32), ..made(true) };
        check(&[], Command::Define(said), Err("invalid-field"));
        check(&[], Command::Define(Definition { size_mib: 4, ..made(true) }), Err("invalid-field"));
        check(&[], Command::Define(Definition { found: None, ..made(true) }), Err("invalid-field"));
        let left_out = Definition { sha256: String::new(), ..definition() };
        check(&[], Command::Define(left_out), Err("invalid-field"));
    }
}
