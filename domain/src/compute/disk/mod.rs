//! Block storage, in a cloud or on a host of ours.
//!
//! One that is in a cloud is only seen, as in [`crate::observation`]. One of ours lies on one host:
//!
//! ```text
//!          create                 confirm             detach, confirm
//!  absent ───────► creating ─────────────► attached ◄────────────────► available
//!     │ provision      │ abandon             │  ▲      attach, confirm      │ delete
//!     ▼                ▼                     └──┘ grow, throttle            ▼
//!  creating ◄─ with its server           removing ──── confirm-removal ──► gone
//! ```
//!
//! What is there of one that rests can be made what a backup says, `restore`: it is the old disk until it is
//! the new one, so that one whose restoring was given up is either of both, and whole.
//!
//! A server's own list says which disks it is started with, and changes by the append that orders it here,
//! so that a start that gets in between starts it as it is to be. A disk that a server has when nothing is
//! left of that server goes with it; one that is to be kept is detached before.

mod limits;
mod seen;
mod source;

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

pub use limits::{Limits, Rate};
pub use seen::{DiskState, SeenDisk};
pub use source::{From, Source};

use super::{
    placement::{HostId, ServerId},
    server::{
        home::PROVIDER,
        parts::{self, DISK_GIB_MAX},
    },
    storage::{Format, StorageId, lease::Leases},
};
use crate::{
    kernel::{
        Companion, Decider, Facets, OnHost, Orders, Outstanding, Refusal, Stamp, Verb, codes,
    },
    observation::{Evidence, Noticed, Observation, Origin, Resource},
    tenancy::check_name,
};

/// What a disk can wait for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
#[schemars(rename = "DiskOrder")]
pub enum Order {
    /// Let its server have it.
    Attach {},
    /// Make it, and let its server have it.
    Create {},
    /// Take it from its server.
    Detach {},
    /// Make it as large as it is to be.
    Grow {},
    /// Leave nothing of it on its host.
    Remove {},
    /// Make it what something else was; its server does not run.
    Restore {
        /// What.
        source: Source,
    },
    /// Keep its traffic within its limits.
    Throttle {},
}

/// A disk of ours, as its host has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ActualDisk")]
pub struct Actual {
    /// What its server sees, in bytes.
    pub size_bytes: u64,
    /// What it takes of its host's storage, in bytes.
    pub taken_bytes: u64,
    /// Its limits, as the running server's; none while it is attached to none that runs.
    #[serde(default)]
    pub limits: Option<Limits>,
}

/// What a disk is created with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "DiskCreation")]
pub struct Creation {
    /// Its name, 1…100 characters.
    pub name: String,
    /// The server of ours that gets it; it lies on that server's host and is that server's owner's.
    pub server: Uuid,
    /// 1…65,536 GiB; as large as what it is made from when that is named and this is left out.
    #[serde(default)]
    pub size_gib: u64,
    /// How it lies on its host.
    #[serde(default = "qcow2")]
    pub format: Format,
    /// How much may be read and written; no limit when left out.
    #[serde(default)]
    pub limits: Limits,
    /// The storage it lies on, of those that its host and others reach; on its host alone when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageId>,
    /// The backup or snapshot that it is made from; it is empty when this is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<From>,
    /// Filled in by Skyledger.
    #[serde(default)]
    pub found: Option<Place>,
}

fn qcow2() -> Format {
    Format::Qcow2
}

/// Where a disk lies, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "DiskPlace")]
pub struct Place {
    /// Its own id.
    pub id: Uuid,
    /// Whose it is; none is the estate's.
    #[serde(default)]
    pub project: Option<Uuid>,
    /// The host.
    pub host: HostId,
    /// Whether it is a volume that several hosts reach, and active on a lease.
    #[serde(default, skip_serializing_if = "is_false")]
    pub leased: bool,
    /// What it is made from; none when it is made empty, or with its server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The file or device of its host that it is, where it was there before its server was ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_place: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// A command of a disk.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "DiskCommand")]
pub enum Command {
    /// Give up the order that is parked.
    Abandon {},
    /// Give it to a project.
    Assign {
        /// The new owner; none is the estate.
        project: Option<Uuid>,
    },
    /// Let a server have it.
    Attach {
        /// A server on the same host.
        server: Uuid,
    },
    /// A backup or a snapshot works on it: it stays where it is and as it is meanwhile.
    BeginUse {
        /// Which backup, snapshot or disk.
        by: Uuid,
    },
    /// The host has carried out an order.
    Confirm {
        /// The order's number.
        number: u64,
        /// What is there now.
        seen: Actual,
    },
    /// The host has left nothing of it.
    ConfirmRemoval {
        /// The order's number.
        number: u64,
    },
    /// Make one for a server.
    Create(Creation),
    /// Remove it for good; no server may have it.
    Delete {},
    /// Take it from its server, and keep it.
    Detach {},
    /// One of its snapshots is there no more.
    DropSnapshot {
        /// Which.
        snapshot: Uuid,
    },
    /// A host may not have it active any more, for its server stays where it is.
    EndLease {
        /// The host.
        host: HostId,
    },
    /// What worked on it is through.
    EndUse {
        /// Which backup, snapshot or disk.
        by: Uuid,
    },
    /// Make it larger.
    Grow {
        /// Its new size in GiB, more than before.
        size_gib: u64,
    },
    /// Its server was removed, and it with it.
    GoWithServer {},
    /// It has a snapshot.
    KeepSnapshot {
        /// Which.
        snapshot: Uuid,
    },
    /// Its server was made, and it with it.
    MadeWithServer {},
    /// Its server is on another host, and it with it.
    MoveWithServer {
        /// The host.
        host: HostId,
    },
    /// The observer saw it.
    Observe {
        /// Where.
        origin: Origin,
        /// Who owns it, when it is new.
        #[serde(default)]
        project: Option<Uuid>,
        /// What it is.
        seen: SeenDisk,
        /// Who changed it, where the provider tells.
        #[serde(default)]
        actor: Option<String>,
    },
    /// The runner gives up until a person decides.
    Park {
        /// The order's number.
        number: u64,
        /// What stood in the way.
        reason: String,
    },
    /// It is made with a server that is launched.
    Provision {
        /// What it is.
        creation: Creation,
        /// Whether its server starts from it.
        root: bool,
    },
    /// Make it what a backup says, in its place; its server is stopped. What is on it is lost.
    Restore {
        /// The backup, of this disk or another one.
        backup: Uuid,
        /// Filled in by Skyledger.
        #[serde(default)]
        found: Option<Source>,
    },
    /// Go on with the order that is parked.
    Retry {},
    /// Another host may have it active as well, for its server goes there.
    ShareLease {
        /// The host.
        host: HostId,
    },
    /// A host alone may have it active, for its server is there.
    TakeLease {
        /// The host.
        host: HostId,
    },
    /// Limit what is read and written.
    Throttle {
        /// All its limits; what is left out is not limited any more.
        limits: Limits,
    },
    /// The observer knows that it is not there any more.
    Vanish {
        /// From what.
        evidence: Evidence,
    },
}

/// A fact about a disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
#[schemars(rename = "DiskEvent")]
pub enum Event {
    /// A parked order was given up.
    Abandoned {},
    /// It was given to a project.
    Assigned {
        /// The new owner; none is the estate.
        project: Option<Uuid>,
    },
    /// A server is to have it.
    AttachOrdered {
        /// Which.
        server: ServerId,
    },
    /// An order was carried out.
    Confirmed {
        /// The order's number.
        number: u64,
        /// What is there now.
        seen: Actual,
    },
    /// It is to be made for a server.
    CreationOrdered(Creation),
    /// It is to be taken from its server.
    DetachOrdered {},
    /// It was seen for the first time.
    Discovered {
        /// Where.
        origin: Origin,
        /// Who owns it from now on.
        project: Option<Uuid>,
        /// What it is.
        seen: SeenDisk,
    },
    /// It is to be larger.
    GrowthOrdered {
        /// Its new size in GiB.
        size_gib: u64,
    },
    /// A host may not have it active any more.
    LeaseEnded {
        /// The host.
        host: HostId,
    },
    /// Another host may have it active as well.
    LeaseShared {
        /// The host.
        host: HostId,
    },
    /// A host alone may have it active.
    LeaseTaken {
        /// The host.
        host: HostId,
    },
    /// It was made with its server.
    Made {},
    /// Its server is on another host, and it with it.
    Moved {
        /// The host.
        host: HostId,
    },
    /// It was seen to be different.
    Observed {
        /// What it is now.
        seen: SeenDisk,
        /// Which fields differ from what was seen before.
        fields: Vec<String>,
        /// Who changed it, where the provider tells.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        actor: Option<String>,
    },
    /// The runner gave up until a person decides.
    Parked {
        /// The order's number.
        number: u64,
        /// What stood in the way.
        reason: String,
    },
    /// It is made with a server that is launched.
    Provisioned {
        /// What it is.
        creation: Creation,
        /// Whether its server starts from it.
        root: bool,
    },
    /// It had vanished and was seen again.
    Reappeared {
        /// What it is now.
        seen: SeenDisk,
    },
    /// Nothing of it is to be left on its host.
    RemovalOrdered {},
    /// Nothing of it is left.
    Removed {},
    /// It is to be what something else was.
    RestoreOrdered {
        /// What.
        source: Source,
    },
    /// A parked order goes on.
    RetryOrdered {},
    /// One of its snapshots is there no more.
    SnapshotDropped {
        /// Which.
        snapshot: Uuid,
    },
    /// It has a snapshot.
    SnapshotKept {
        /// Which.
        snapshot: Uuid,
    },
    /// Its traffic is to be limited.
    ThrottleOrdered {
        /// All its limits.
        limits: Limits,
    },
    /// Something works on it.
    UseBegun {
        /// Which backup, snapshot or disk.
        by: Uuid,
    },
    /// What worked on it is through.
    UseEnded {
        /// Which backup, snapshot or disk.
        by: Uuid,
    },
    /// It is not there any more.
    Vanished {
        /// What that was concluded from.
        evidence: Evidence,
    },
}

/// A disk of ours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Home {
    /// Its own id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// How large it is to be, in GiB.
    pub size_gib: u64,
    /// How it lies on its host.
    pub format: Format,
    /// Its host.
    pub host: HostId,
    /// The server that has it, or is to have it; none has one that is detached.
    pub server: Option<ServerId>,
    /// Whether its server starts from it.
    pub root: bool,
    /// The limits that it is to have.
    #[serde(default)]
    pub limits: Limits,
    /// The storage it lies on; none for one that is on its host alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageId>,
    /// Who may have it active, where it is a volume that several hosts reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leases: Option<Leases>,
    /// What it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The file or device of its host that it is, where it was there before its server was ours: it is left
    /// there, whatever becomes of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_place: Option<String>,
    /// What its host said last.
    #[serde(default)]
    pub actual: Option<Actual>,
    /// Whether it was ever made.
    pub made: bool,
    /// Whether nothing of it is left.
    pub removed: bool,
    /// The snapshots that are in it, or beside it in its volume group.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub snapshots: BTreeSet<Uuid>,
    /// The backup or snapshot that works on it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_by: Option<Uuid>,
    /// What is wanted of it.
    pub orders: Orders<Order>,
}

/// Block storage, in a cloud or on a host of ours.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Disk {
    /// What is seen of one in a cloud; and whose it is.
    #[serde(flatten)]
    pub observation: Observation<SeenDisk>,
    /// What one of ours has; none for one in a cloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<Home>,
}

static VERBS: &[Verb] = &[
    Verb::operator("abandon", "Gives up the parked order; what was begun is taken back."),
    Verb::admin("assign", "Gives it to another project."),
    Verb::operator(
        "attach",
        "Lets a server on the same host have a disk of ours, also while it runs.",
    ),
    Verb::system("begin-use", "Says that a backup or a snapshot works on it."),
    Verb::system("confirm", "Reports that an order was carried out."),
    Verb::system("confirm-removal", "Reports that nothing of it is left on its host."),
    Verb::operator("create", "Makes a disk on a host of ours, for a server there.").creating(),
    Verb::operator("delete", "Removes a disk of ours for good, when no server has it."),
    Verb::operator("detach", "Takes a disk of ours from its server, and keeps it."),
    Verb::system("drop-snapshot", "Says that one of its snapshots is there no more."),
    Verb::system("end-lease", "Says that a host may not have it active any more."),
    Verb::system("end-use", "Says that what worked on it is through."),
    Verb::system("go-with-server", "Says that its server was removed, and it with it."),
    Verb::operator("grow", "Makes a disk of ours larger, also while its server runs."),
    Verb::system("keep-snapshot", "Says that it has a snapshot."),
    Verb::system("made-with-server", "Says that its server was made, and it with it."),
    Verb::system("move-with-server", "Says that its server is on another host, and it with it."),
    Verb::system("observe", "Reports what was seen in the cloud.").creating(),
    Verb::system("park", "Reports that an order keeps failing."),
    Verb::system("provision", "Makes it with a server that is launched.").creating(),
    Verb::operator(
        "restore",
        "Makes a disk of ours what a backup says, in its place; its server is stopped.",
    ),
    Verb::operator("retry", "Goes on with the parked order."),
    Verb::system("share-lease", "Says that another host may have it active as well."),
    Verb::system("take-lease", "Says that a host alone may have it active."),
    Verb::operator("throttle", "Limits what is read from and written to a disk of ours."),
    Verb::system("vanish", "Reports that it is not in the cloud any more."),
];

fn no(detail: impl Into<String>) -> Refusal {
    Refusal::new(&codes::INVALID_FIELD, detail)
}

impl Creation {
    fn check(&self) -> Result<&Place, Refusal> {
        check_name(&self.name)?;
        self.limits.check()?;
        if !(1..=DISK_GIB_MAX).contains(&self.size_gib) {
            return Err(no(format!("size_gib: is 1 to {DISK_GIB_MAX}")));
        }
        let found = self.found.as_ref();
        let found = found.ok_or_else(|| no("found: nobody looked where the server is"))?;
        if self.from.is_some() != found.source.is_some() {
            return Err(no("from: nobody looked what it is made from"));
        }
        Ok(found)
    }
}

impl Home {
    fn of(creation: Creation, root: bool) -> Option<Self> {
        let place = creation.found?;
        Some(Self {
            id: place.id,
            name: creation.name,
            size_gib: creation.size_gib,
            format: creation.format,
            host: place.host,
            server: Some(ServerId::new(creation.server)),
            root,
            limits: creation.limits,
            storage: creation.storage,
            leases: place.leased.then(|| Leases::granted(place.host)),
            source: place.source,
            in_place: place.in_place,
            actual: None,
            made: false,
            removed: false,
            snapshots: BTreeSet::new(),
            used_by: None,
            orders: Orders::default(),
        })
    }

    /// Whether a disk that was there before its server was ours can do this. It stays where it lies, and with
    /// that server; what is in it is the server's to change.
    fn can(&self, verb: &str) -> Result<(), Refusal> {
        let Some(path) = &self.in_place else { return Ok(()) };
        let why = match verb {
            "attach" | "delete" | "detach" => "it stays with the server that it was adopted with",
            "grow" | "restore" if parts::is_device(path) => "it is a device of its host",
            _ => return Ok(()),
        };
        let detail = format!("{verb}: {why}: {path}");
        Err(Refusal::new(&codes::UNSUPPORTED, detail))
    }

    /// What it is being made now, in its place.
    pub fn restored_from(&self) -> Option<&Source> {
        match self.orders.out.as_ref().map(|out| &out.order) {
            Some(Order::Restore { source }) => Some(source),
            _ => None,
        }
    }

    /// Its entry in its server's list.
    fn part(&self) -> parts::Disk {
        parts::Disk {
            id: self.id,
            size_gib: self.size_gib,
            format: self.format,
            from_image: self.root,
            limits: self.limits,
            storage: self.storage,
            leased: self.leases.is_some(),
            source: self.source.clone(),
            in_place: self.in_place.clone(),
        }
    }

    /// The server is to be started with it from now on, or with it as it now is.
    fn admit(&self, server: ServerId) -> Companion {
        let body = json!({"host": self.host, "disk": self.part()});
        Companion { kind: "server", id: server.uuid(), verb: "admit-disk", body }
    }

    /// The server is not started with it any more.
    fn dismiss(&self, server: ServerId) -> Companion {
        let body = json!({"disk": self.id});
        Companion { kind: "server", id: server.uuid(), verb: "dismiss-disk", body }
    }
}

impl Disk {
    /// One of ours that is not gone.
    fn ours(&self, verb: &str) -> Result<&Home, Refusal> {
        match &self.home {
            Some(home) if !home.removed => Ok(home),
            Some(_) => Err(Refusal::wrong_state(verb, self.status())),
            None if self.observation.seen.is_none() => {
                Err(Refusal::new(&codes::NOT_FOUND, "there is no such disk"))
            }
            None => {
                let detail = format!("{verb}: only a disk on a host of ours");
                Err(Refusal::new(&codes::UNSUPPORTED, detail))
            }
        }
    }

    /// One of ours that is there and that nothing is ordered of.
    fn free(&self, verb: &str) -> Result<&Home, Refusal> {
        let home = self.ours(verb)?;
        home.orders.ensure_free()?;
        if !home.made {
            return Err(Refusal::wrong_state(verb, self.status()));
        }
        home.can(verb)?;
        Ok(home)
    }

    /// The same, and nothing works on it: it may be changed and taken elsewhere.
    fn unused(&self, verb: &str) -> Result<&Home, Refusal> {
        let home = self.free(verb)?;
        self.ensure_unused()?;
        Ok(home)
    }

    /// Nothing works on it.
    ///
    /// # Errors
    /// `in-use`: a backup, a snapshot or a disk that is made from it does.
    pub fn ensure_unused(&self) -> Result<(), Refusal> {
        match self.uses() {
            None => Ok(()),
            Some(by) => {
                let detail = format!("{by} works on the disk; wait until it is through");
                Err(Refusal::new(&codes::IN_USE, detail))
            }
        }
    }

    /// Whether the order that is out has this number, and is or is not one that removes it.
    fn is_out(&self, number: u64, removes: bool) -> bool {
        let out = self.home.as_ref().and_then(|home| home.orders.out.as_ref());
        out.is_some_and(|out| out.number == number && (out.order == Order::Remove {}) == removes)
    }

    /// Its leases, where it has any.
    fn leases(&self) -> Option<&Leases> {
        self.home.as_ref().filter(|home| !home.removed)?.leases.as_ref()
    }

    fn uses(&self) -> Option<Uuid> {
        self.home.as_ref().and_then(|home| home.used_by)
    }

    fn has(&self, snapshot: Uuid) -> bool {
        self.home.as_ref().is_some_and(|home| home.snapshots.contains(&snapshot))
    }

    fn parked(&self) -> Result<&Home, Refusal> {
        let nothing = || Refusal::new(&codes::NOTHING_PARKED, "no order of this is parked");
        let home = self.home.as_ref().ok_or_else(nothing)?;
        home.orders.ensure_parked()?;
        Ok(home)
    }

    fn at_home(&mut self, change: impl FnOnce(&mut Home)) {
        if let Some(home) = &mut self.home {
            change(home);
        }
    }

    fn lease(&mut self, change: impl FnOnce(&mut Leases)) {
        if let Some(leases) = self.home.as_mut().and_then(|home| home.leases.as_mut()) {
            change(leases);
        }
    }

    fn exists(&self) -> bool {
        self.home.is_some() || self.observation.seen.is_some()
    }
}

impl Decider for Disk {
    const KIND: &'static str = SeenDisk::KIND;
    const PLURAL: &'static str = SeenDisk::PLURAL;
    const SUMMARY: &'static str = SeenDisk::SUMMARY;
    type Command = Command;
    type Event = Event;
    type Order = Order;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command, _: &Stamp) -> Result<Vec<Event>, Refusal> {
        Ok(match command {
            Command::Abandon {} => match self.parked()?.orders.out.as_ref().map(|out| &out.order) {
                // What was begun is taken back.
                Some(Order::Attach {}) => vec![Event::Abandoned {}, Event::DetachOrdered {}],
                Some(Order::Create {}) => vec![Event::Abandoned {}, Event::RemovalOrdered {}],
                _ => vec![Event::Abandoned {}],
            },
            Command::Assign { .. } if !self.exists() => {
                return Err(Refusal::wrong_state("assign", self.status()));
            }
            Command::Assign { project } if project == self.observation.project => vec![],
            Command::Assign { project } => {
                self.ensure_unused()?;
                vec![Event::Assigned { project }]
            }
            Command::Attach { server } => {
                let home = self.unused("attach")?;
                let server = ServerId::new(server);
                match home.server {
                    Some(has) if has == server => vec![],
                    Some(has) => {
                        let detail = format!("server {has} has it; detach it first");
                        return Err(Refusal::new(&codes::IN_USE, detail));
                    }
                    None => vec![Event::AttachOrdered { server }],
                }
            }
            Command::BeginUse { by } if self.uses() == Some(by) => vec![],
            Command::BeginUse { by } => {
                self.unused("begin-use")?;
                vec![Event::UseBegun { by }]
            }
            Command::Confirm { number, seen } if self.is_out(number, false) => {
                vec![Event::Confirmed { number, seen }]
            }
            Command::ConfirmRemoval { number } if self.is_out(number, true) => {
                vec![Event::Removed {}]
            }
            // A report about an order that is settled already says nothing new.
            Command::Confirm { .. } | Command::ConfirmRemoval { .. } => vec![],
            Command::Create(_) | Command::Provision { .. } if self.exists() => {
                return Err(Refusal::new(&codes::ALREADY_EXISTS, "the disk exists"));
            }
            Command::Create(creation) => {
                creation.check()?;
                vec![Event::CreationOrdered(creation)]
            }
            Command::Delete {} => {
                let home = self.unused("delete")?;
                if let Some(server) = home.server {
                    let detail = format!("server {server} has it; detach it first");
                    return Err(Refusal::new(&codes::IN_USE, detail));
                }
                if let Some(snapshot) = home.snapshots.first() {
                    let detail = format!("it has snapshot {snapshot}; delete its snapshots first");
                    return Err(Refusal::new(&codes::IN_USE, detail));
                }
                vec![Event::RemovalOrdered {}]
            }
            Command::Detach {} => {
                let home = self.unused("detach")?;
                if home.root && home.server.is_some() {
                    let detail = "detach: its server starts from it";
                    return Err(Refusal::new(&codes::IN_USE, detail));
                }
                if home.server.is_some() { vec![Event::DetachOrdered {}] } else { vec![] }
            }
            Command::DropSnapshot { snapshot } if self.has(snapshot) => {
                vec![Event::SnapshotDropped { snapshot }]
            }
            Command::DropSnapshot { .. } => vec![],
            Command::EndLease { host } => {
                let ends = self.leases().is_some_and(|leases| leases.can_end(host));
                if ends { vec![Event::LeaseEnded { host }] } else { vec![] }
            }
            Command::EndUse { by } if self.uses() == Some(by) => vec![Event::UseEnded { by }],
            Command::EndUse { .. } => vec![],
            Command::GoWithServer {} => {
                let there = self.home.as_ref().is_some_and(|home| !home.removed);
                if there { vec![Event::Removed {}] } else { vec![] }
            }
            Command::Grow { size_gib } => {
                let home = self.unused("grow")?;
                if !(home.size_gib..=DISK_GIB_MAX).contains(&size_gib) {
                    let (least, most) = (home.size_gib, DISK_GIB_MAX);
                    return Err(no(format!("size_gib: a disk only grows: {least} to {most}")));
                }
                let same = size_gib == home.size_gib;
                // A raw one with snapshots is a volume.
                if let Some(snapshot) = home.snapshots.first()
                    && home.format == Format::Raw
                    && !same
                {
                    let detail = format!(
                        "it has snapshot {snapshot}, and a volume with snapshots does not grow; \
                         delete its snapshots first"
                    );
                    return Err(Refusal::new(&codes::IN_USE, detail));
                }
                if same { vec![] } else { vec![Event::GrowthOrdered { size_gib }] }
            }
            Command::KeepSnapshot { snapshot } => {
                let new = !self.has(snapshot) && self.ours("keep-snapshot").is_ok();
                if new { vec![Event::SnapshotKept { snapshot }] } else { vec![] }
            }
            Command::MadeWithServer {} => {
                let new = self.home.as_ref().is_some_and(|home| !home.made && !home.removed);
                if new { vec![Event::Made {}] } else { vec![] }
            }
            Command::MoveWithServer { host } => {
                let home = self.ours("move-with-server")?;
                if home.host == host { vec![] } else { vec![Event::Moved { host }] }
            }
            Command::Observe { .. } if self.home.is_some() => {
                return Err(Refusal::wrong_state("observe", self.status()));
            }
            Command::Observe { origin, project, seen, actor } => {
                match self.observation.notice(&origin, &seen)? {
                    Noticed::Same => vec![],
                    Noticed::New => vec![Event::Discovered { origin, project, seen }],
                    Noticed::Different(fields) => vec![Event::Observed { seen, fields, actor }],
                    Noticed::Back => vec![Event::Reappeared { seen }],
                }
            }
            Command::Park { number, reason } => {
                let on = self.home.as_ref().is_some_and(|home| home.orders.is_worked_on(number));
                if on { vec![Event::Parked { number, reason }] } else { vec![] }
            }
            Command::Provision { creation, root } => {
                creation.check()?;
                vec![Event::Provisioned { creation, root }]
            }
            Command::Restore { found, .. } => {
                let home = self.unused("restore")?;
                if let Some(snapshot) = home.snapshots.first() {
                    let detail =
                        format!("it has snapshot {snapshot}, which would be lost; delete it");
                    return Err(Refusal::new(&codes::IN_USE, detail));
                }
                let source = found.ok_or_else(|| no("found: nobody looked for the backup"))?;
                vec![Event::RestoreOrdered { source }]
            }
            Command::Retry {} => {
                self.parked()?;
                vec![Event::RetryOrdered {}]
            }
            Command::ShareLease { host } => {
                let shares = self.leases().is_some_and(|leases| leases.can_share(host));
                if shares { vec![Event::LeaseShared { host }] } else { vec![] }
            }
            Command::TakeLease { host } => {
                let takes = self.leases().is_some_and(|leases| !leases.is_only(host));
                if takes { vec![Event::LeaseTaken { host }] } else { vec![] }
            }
            Command::Throttle { limits } => {
                let home = self.free("throttle")?;
                limits.check()?;
                let same = limits == home.limits;
                if same { vec![] } else { vec![Event::ThrottleOrdered { limits }] }
            }
            Command::Vanish { evidence } if self.observation.is_there() => {
                vec![Event::Vanished { evidence }]
            }
            Command::Vanish { .. } => vec![],
        })
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::Abandoned {} => self.at_home(|home| home.orders.settle()),
            Event::Assigned { project } => self.observation.project = project,
            Event::AttachOrdered { server } => self.at_home(|home| {
                home.server = Some(server);
                home.orders.issue(Order::Attach {});
            }),
            Event::Confirmed { seen, .. } => self.at_home(|home| {
                let detached =
                    home.orders.out.as_ref().is_some_and(|out| out.order == Order::Detach {});
                if detached {
                    home.server = None;
                    home.root = false;
                }
                home.made = true;
                home.actual = Some(seen);
                home.orders.settle();
            }),
            Event::CreationOrdered(creation) => {
                let place = creation.found.as_ref();
                self.observation.project = place.and_then(|place| place.project);
                self.home = Home::of(creation, false);
                self.at_home(|home| home.orders.issue(Order::Create {}));
            }
            Event::DetachOrdered {} => self.at_home(|home| home.orders.issue(Order::Detach {})),
            Event::Discovered { origin, project, seen } => {
                let (origin, seen) = (Some(origin), Some(seen));
                self.observation = Observation { origin, project, seen, gone: None };
            }
            Event::GrowthOrdered { size_gib } => self.at_home(|home| {
                home.size_gib = size_gib;
                home.orders.issue(Order::Grow {});
            }),
            Event::LeaseEnded { host } => self.lease(|leases| leases.end(host)),
            Event::LeaseShared { host } => self.lease(|leases| leases.share(host)),
            Event::LeaseTaken { host } => self.lease(|leases| leases.take(host)),
            Event::Made {} => self.at_home(|home| home.made = true),
            Event::Moved { host } => {
                self.at_home(|home| home.host = host);
                self.lease(|leases| leases.take(host));
            }
            Event::Observed { seen, .. } => self.observation.seen = Some(seen),
            Event::Parked { reason, .. } => self.at_home(|home| home.orders.park(reason)),
            Event::Provisioned { creation, root } => {
                let place = creation.found.as_ref();
                self.observation.project = place.and_then(|place| place.project);
                self.home = Home::of(creation, root);
            }
            Event::Reappeared { seen } => {
                self.observation.seen = Some(seen);
                self.observation.gone = None;
            }
            Event::RemovalOrdered {} => self.at_home(|home| home.orders.issue(Order::Remove {})),
            Event::Removed {} => self.at_home(|home| {
                home.removed = true;
                home.server = None;
                home.snapshots.clear();
                home.orders.settle();
            }),
            Event::RestoreOrdered { source } => {
                self.at_home(|home| home.orders.issue(Order::Restore { source }));
            }
            Event::RetryOrdered {} => self.at_home(|home| home.orders.retry()),
            Event::SnapshotDropped { snapshot } => {
                self.at_home(|home| home.snapshots.retain(|one| *one != snapshot));
            }
            Event::SnapshotKept { snapshot } => {
                self.at_home(|home| home.snapshots.extend([snapshot]));
            }
            Event::ThrottleOrdered { limits } => self.at_home(|home| {
                home.limits = limits;
                home.orders.issue(Order::Throttle {});
            }),
            Event::UseBegun { by } => self.at_home(|home| home.used_by = Some(by)),
            Event::UseEnded { .. } => self.at_home(|home| home.used_by = None),
            Event::Vanished { evidence } => self.observation.gone = Some(evidence),
        }
        self
    }

    fn order(&self) -> Option<Outstanding<Order>> {
        self.home.as_ref()?.orders.out.clone()
    }

    fn status(&self) -> &'static str {
        let Some(home) = &self.home else { return self.observation.status() };
        match &home.orders.out {
            _ if home.removed => "gone",
            Some(Outstanding { parked: Some(_), .. }) => "parked",
            Some(Outstanding { order: Order::Attach {}, .. }) => "attaching",
            Some(Outstanding { order: Order::Create {}, .. }) => "creating",
            Some(Outstanding { order: Order::Detach {}, .. }) => "detaching",
            Some(Outstanding { order: Order::Grow {}, .. }) => "growing",
            Some(Outstanding { order: Order::Remove {}, .. }) => "removing",
            Some(Outstanding { order: Order::Restore { .. }, .. }) => "restoring",
            Some(Outstanding { order: Order::Throttle {}, .. }) => "throttling",
            None if !home.made => "creating",
            None if home.server.is_some() => "attached",
            None => "available",
        }
    }

    fn facets(&self) -> Facets {
        let mut facets = self.observation.facets();
        if let Some(home) = &self.home {
            facets.name = Some(home.name.clone());
            facets.provider = Some(PROVIDER.to_owned());
            facets.external_id = Some(home.id.to_string());
            facets.parent = home.server.map(|server| server.to_string());
            facets.gone = home.removed;
        }
        facets
    }

    fn on_host(&self) -> Option<OnHost> {
        let home = self.home.as_ref()?;
        let server = home.server.map(ServerId::uuid);
        Some(OnHost { host: home.host.uuid(), server })
    }

    fn stores(&self) -> Vec<Uuid> {
        let Some(home) = &self.home else { return Vec::new() };
        let made_from = home.source.as_ref().filter(|_| !home.made);
        home.restored_from().or(made_from).and_then(Source::store).into_iter().collect()
    }

    fn volumes(&self) -> Vec<Uuid> {
        let made_from = self.home.iter().filter(|home| !home.made);
        made_from.filter_map(|home| home.source.as_ref()?.of_snapshot()).collect()
    }

    fn companions(&self, events: &[Event]) -> Vec<Companion> {
        let home = self.home.as_ref();
        // What is in its file goes with it, and is whose it is.
        let with_it = events.iter().filter_map(|event| match event {
            Event::Removed {} => Some(("go-with-disk", json!({}))),
            Event::Assigned { project } => Some(("assign-with-disk", json!({"project": project}))),
            _ => None,
        });
        let snapshots = with_it.flat_map(|(verb, body)| {
            let all = home.into_iter().flat_map(|home| &home.snapshots);
            all.map(move |id| Companion { kind: "snapshot", id: *id, verb, body: body.clone() })
        });
        let of = |event: &Event| match (event, home) {
            (Event::CreationOrdered(creation), _) => {
                let home = Home::of(creation.clone(), false)?;
                Some(home.admit(home.server?))
            }
            (Event::AttachOrdered { server }, Some(home)) => Some(home.admit(*server)),
            (Event::GrowthOrdered { size_gib }, Some(home)) => {
                let grown = Home { size_gib: *size_gib, ..home.clone() };
                Some(grown.admit(home.server?))
            }
            (Event::ThrottleOrdered { limits }, Some(home)) => {
                let limited = Home { limits: *limits, ..home.clone() };
                Some(limited.admit(home.server?))
            }
            // One that a server has is removed when its making was given up.
            (Event::DetachOrdered {} | Event::RemovalOrdered {}, Some(home)) => {
                Some(home.dismiss(home.server?))
            }
            _ => None,
        };
        // What it is made from is needed until it is there, or is given up.
        let sources = events.iter().filter_map(|event| match (event, home) {
            (Event::CreationOrdered(creation) | Event::Provisioned { creation, .. }, _) => {
                let place = creation.found.as_ref()?;
                Some(place.source.as_ref()?.tell(place.id, "begin-use"))
            }
            (Event::Confirmed { .. } | Event::Made {} | Event::Removed {}, Some(home))
                if !home.made =>
            {
                Some(home.source.as_ref()?.tell(home.id, "end-use"))
            }
            (Event::RestoreOrdered { source }, Some(home)) => {
                Some(source.tell(home.id, "begin-use"))
            }
            (Event::Abandoned {} | Event::Confirmed { .. } | Event::Removed {}, Some(home)) => {
                Some(home.restored_from()?.tell(home.id, "end-use"))
            }
            _ => None,
        });
        events.iter().filter_map(of).chain(snapshots).chain(sources).collect()
    }

    fn claims(&self, events: &[Event]) -> Vec<String> {
        let of = |event: &Event| match event {
            Event::Discovered { origin, .. } => Some(origin.claim(Self::KIND)),
            _ => None,
        };
        events.iter().filter_map(of).collect()
    }
}

#[cfg(test)]
mod tests;
