//! A machine a project rents, or one of our own.
//!
//! What is seen of it lives as in [`crate::observation`]; what is wanted of it is an order. Both
//! are fields of their own: an observation never says anything about an order. What a server of our
//! own has besides is in [`home`].

pub mod addresses;
pub mod adopted;
pub mod blueprint;
pub mod boot;
pub mod carried;
pub mod cdrom;
pub mod coming;
pub mod console;
pub mod devices;
pub mod direct;
pub mod elsewhere;
pub mod hardware;
pub mod home;
pub mod migrate;
pub mod nic;
pub mod order;
pub mod parts;
pub mod password;
pub mod rebuild;
pub mod rescue;
pub mod resize;
pub mod transfer;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use boot::BootDevice;
use carried::Used;
use console::{Console, ConsoleEnd, ConsoleKind};
use home::{Home, Launch};
use migrate::{Landing, MigrationStep};
use nic::SeenNic;
pub use order::{CloudOrder, Order};
use rescue::{Rescue, RescueSystem};
use transfer::TransferLimits;

use crate::{
    compute::{
        adoption::Adoption,
        placement::{DeviceAsk, HostId, Placement, SeenVgpu, VirtualFunction},
        utilisation::{News, Utilisation, Utilisations},
    },
    kernel::{
        Companion, Decider, Facets, OnHost, Orders, Outstanding, Refusal, Stamp, Verb, codes,
    },
    network::{bandwidth::Bandwidth, quota::Quota},
    observation::{Evidence, Noticed, Observation, Origin, Resource},
    tenancy::{check_name, check_tags},
};

/// Whether it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Power {
    /// On its way to running.
    Starting,
    /// Running.
    Running,
    /// On its way to stopped.
    Stopping,
    /// Stopped.
    Stopped,
    /// Standing still; everything of it is in its host's memory.
    Suspended,
    /// The provider does not say.
    Unknown,
}

/// What is seen of a server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Its name tag; empty when it has none.
    #[serde(default)]
    pub name: String,
    /// Whether it runs.
    pub power: Power,
    /// The provider's name of its size, for instance `m7g.large`.
    pub shape: String,
    /// The image it was made from, by external id.
    #[serde(default)]
    pub image: Option<String>,
    /// The zone it lies in.
    #[serde(default)]
    pub zone: Option<String>,
    /// The VPC it is in, by external id.
    #[serde(default)]
    pub vpc: Option<String>,
    /// The network of its first interface, by external id.
    #[serde(default)]
    pub network: Option<String>,
    /// Its addresses, IPv4 and IPv6, private and public, sorted.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub addresses: Vec<IpNet>,
    /// The security groups that guard it, by external id, sorted.
    #[serde(default)]
    pub security_groups: Vec<String>,
    /// Its disks, by external id, sorted.
    #[serde(default)]
    pub disks: Vec<String>,
    /// What its host says of the interfaces of one of our own, in the guest's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nics: Vec<SeenNic>,
    /// What its host reads back of the virtual functions of one of our own, by their addresses there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub functions: BTreeMap<String, VirtualFunction>,
    /// What its host reads back of the vGPUs of one of our own that are virtual functions, by their ids.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub vgpus: BTreeMap<String, SeenVgpu>,
    /// The provider's tags, without Skyledger's own (`skyledger:…`).
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

impl Resource for Machine {
    const KIND: &'static str = "server";
    const PLURAL: &'static str = "servers";
    const SUMMARY: &'static str = "A machine a project rents, or one on a host of ours.";
    fn status(&self) -> &'static str {
        match self.power {
            Power::Starting => "starting",
            Power::Running => "running",
            Power::Stopping => "stopping",
            Power::Stopped => "stopped",
            Power::Suspended => "suspended",
            Power::Unknown => "unknown",
        }
    }
    fn facets(&self, facets: &mut Facets) {
        facets.name = Some(self.name.clone());
        facets.zone.clone_from(&self.zone);
        facets.parent = self.network.clone().or_else(|| self.vpc.clone());
        facets.tags.clone_from(&self.tags);
    }
}

/// A command of a server.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Give up the order that is parked, or break off its way to another host.
    Abandon {},
    /// Give it more devices of its host; it must be stopped.
    AddDevice {
        /// What, as in `devices` of a launch's `spec`.
        device: DeviceAsk,
        /// Which those are: found out by Skyledger, and of no use to callers.
        #[serde(default)]
        found: Option<Box<devices::Found>>,
    },
    /// Give it another interface, also while it runs.
    AddNic {
        /// The interface.
        nic: parts::NicAsk,
        /// What was found of it: by Skyledger, and of no use to callers.
        #[serde(default)]
        found: Option<Box<nic::Found>>,
    },
    /// A disk of ours on its host is one that it is started with, from now on.
    AdmitDisk {
        /// Where the disk lies.
        host: HostId,
        /// The disk.
        disk: parts::Disk,
    },
    /// Its host has it as ours from now on.
    Adopt {
        /// What it is.
        adoption: Box<Adoption>,
    },
    /// Give it to a project.
    Assign {
        /// The new owner; none is the estate.
        project: Option<Uuid>,
    },
    /// Give an interface other addresses of its network. In a server that runs they are set through its
    /// guest agent; where it cannot have them it keeps what it has.
    ChangeAddresses(addresses::Change),
    /// Put a disc into its drive, in place of what is in it, or leave it empty; also while it runs, where it
    /// was started with its drive.
    ChangeCdrom {
        /// An image of the format `iso`, by id; none to leave it empty.
        #[serde(default)]
        image: Option<Uuid>,
        /// What the image is: found out by Skyledger, and of no use to callers.
        #[serde(default)]
        found: Option<Box<parts::Image>>,
    },
    /// Limit an interface and guard it, also while it runs. What is left out stays.
    ChangeNic(nic::Change),
    /// All of the machine that it is made from is here.
    ComeIn {},
    /// The driver has carried out an order.
    Confirm {
        /// The order's number.
        number: u64,
        /// What is there now.
        seen: Machine,
    },
    /// The driver found that the guest cannot have other addresses, and has those that it had.
    ConfirmKeptAddresses {
        /// The order's number.
        number: u64,
        /// Why it cannot.
        reason: String,
        /// What is there now.
        seen: Machine,
    },
    /// A host has carried out a step of its way to another one.
    ConfirmMigration {
        /// The order's number.
        number: u64,
        /// What became of it.
        step: MigrationStep,
    },
    /// The driver has left nothing of it on its host.
    ConfirmRemoval {
        /// The order's number.
        number: u64,
    },
    /// Put it away; for three days it can be had back.
    Delete {
        /// Stop it first when it runs; without this a server that runs is not deleted.
        #[serde(default)]
        stop: bool,
    },
    /// A disk is not one that it is started with any more.
    DismissDisk {
        /// Which.
        disk: Uuid,
    },
    /// Somebody came with a ticket for a console.
    EnterConsole {
        /// SHA-256 of the ticket, in hex.
        ticket: String,
    },
    /// Have it back on another host: its own is dead, and everything it needs lies elsewhere.
    Evacuate {
        /// The host; the best one when left out.
        #[serde(default)]
        to: Option<HostId>,
        /// That somebody has made sure that its host is switched off.
        #[serde(default)]
        host_is_down: bool,
        /// What it takes there: found out by Skyledger, and of no use to callers.
        #[serde(default)]
        placement: Option<Box<Placement>>,
    },
    /// Its security groups have these rules by now.
    FollowGroups {
        /// The rules of its groups: found by Skyledger.
        groups: parts::GroupRules,
    },
    /// The machine that it is made from is to be where it was.
    GiveUp {},
    /// Make a server on one of our hosts.
    Launch(Box<Launch>),
    /// A console was closed.
    LeaveConsole {
        /// Which.
        console: Uuid,
        /// Why.
        why: ConsoleEnd,
    },
    /// End its rescue; it is then as it was before.
    LeaveRescue {},
    /// Say how much of it was used on a day.
    Measure {
        /// The day, and what is known of it.
        utilisation: Utilisation,
    },
    /// Let it go to another host: while it runs, or while it is stopped.
    Migrate {
        /// The host; the best one when left out.
        #[serde(default)]
        to: Option<HostId>,
        /// How long it may take, and how fast it may be sent.
        #[serde(default)]
        limits: TransferLimits,
        /// What it takes there: found out by Skyledger, and of no use to callers.
        #[serde(default)]
        placement: Option<Box<Placement>>,
    },
    /// Its host saw that it runs, or that it does not, without having been told to change that.
    Notice {
        /// The number of the last order that the host had begun when it looked: what it saw says
        /// nothing of what later orders have made of it.
        number: u64,
        /// What it does now.
        power: Power,
    },
    /// The observer saw it.
    Observe {
        /// Where.
        origin: Origin,
        /// Who owns it, when it is new.
        #[serde(default)]
        project: Option<Uuid>,
        /// What it is.
        seen: Machine,
        /// Who changed it, where the provider tells.
        #[serde(default)]
        actor: Option<String>,
    },
    /// Give a ticket for its screen or its serial line: it is in the answer as `secret`, and is good
    /// for one use within a minute.
    OpenConsole {
        /// Which.
        #[serde(rename = "console")]
        kind: ConsoleKind,
        /// Names the console: made up, and of no use to callers.
        #[serde(default)]
        id: Option<Uuid>,
        /// SHA-256 of the ticket: made up, and of no use to callers.
        #[serde(default)]
        ticket: Option<String>,
    },
    /// The runner gives up until a person decides.
    Park {
        /// The order's number.
        number: u64,
        /// What stood in the way.
        reason: String,
    },
    /// Keep it from being deleted.
    Protect {},
    /// Remove a deleted server for good, before its time.
    Purge {},
    /// Have its host say what is there of its interfaces now: limits, and bytes that have passed.
    ReadNics {},
    /// Restart it.
    Reboot {},
    /// Make its root disk from an image again: what was on it is gone; id, addresses and other disks stay.
    Rebuild {
        /// The image, by id; the one it was made from when left out.
        #[serde(default)]
        image: Option<Uuid>,
        /// Stop it first when it runs, and start it afterwards; without this a server that runs is not
        /// rebuilt.
        #[serde(default)]
        stop: bool,
        /// What the image is: found out by Skyledger, and of no use to callers.
        #[serde(default)]
        found: Option<Box<parts::Image>>,
    },
    /// Have it ours no more: it was adopted, and does what it does. Its addresses are free for others then.
    Release {},
    /// Take a device of its host from it; it must be stopped.
    RemoveDevice {
        /// Which, as in `home.placement.holding.devices`.
        device: String,
        /// What it has then: found out by Skyledger, and of no use to callers.
        #[serde(default)]
        found: Option<Box<devices::Found>>,
    },
    /// Take an interface from it, also while it runs; its addresses are free then.
    RemoveNic {
        /// Which, by its id.
        nic: Uuid,
    },
    /// Call it something else. Its host name inside is its own affair.
    Rename {
        /// 1…100 characters.
        name: String,
    },
    /// Start it from a small system in memory, with its disks, to be repaired. One that runs is cut off.
    Rescue {
        /// The system: found out by Skyledger, and of no use to callers.
        #[serde(default)]
        system: Option<RescueSystem>,
        /// The password of its user `root`: made up, shown once in the answer, and of no use to callers.
        #[serde(default)]
        password: Option<String>,
    },
    /// Count the bytes of an interface from nothing; its quota is whole again.
    ResetNicTraffic {
        /// Which, by its id.
        nic: Uuid,
    },
    /// Give it another size, on the host where it has its place; it must be stopped.
    Resize {
        /// Virtual CPUs; as many as it has when left out.
        #[serde(default)]
        vcpus: Option<u32>,
        /// Memory; as much as it has when left out.
        #[serde(default)]
        memory_mib: Option<u64>,
        /// The flavour whose size it gets, by id, in place of both: one that says the same of everything else.
        #[serde(default)]
        flavour: Option<Uuid>,
        /// What it takes of its host: found out by Skyledger, and of no use to callers.
        #[serde(default)]
        placement: Option<Box<Placement>>,
    },
    /// Let a suspended server go on.
    Resume {},
    /// Go on with the order that is parked.
    Retry {},
    /// Say what it is started from, from its next start on.
    SetBootOrder {
        /// What is tried, in turn; each once.
        order: Vec<BootDevice>,
    },
    /// Set a password of somebody inside it, through its guest agent.
    SetPassword {
        /// Whose: 1 to 64 of A-Z, a-z, 0-9, `.`, `_` and `-`.
        #[serde(default = "password::root")]
        user: String,
        /// 8…128 characters. When left out one is made up, and shown once in the answer. It is sealed
        /// before it is recorded.
        #[serde(default)]
        password: Option<String>,
    },
    /// Make it run.
    Start {},
    /// Make it stop.
    Stop {},
    /// Make it stand still, with everything of it in its host's memory.
    Suspend {},
    /// Set tags; null removes one, tags that are not named stay.
    Tag {
        /// Name (1…128 characters) and value (at most 256), at most 50.
        tags: BTreeMap<String, Option<String>>,
    },
    /// Have a deleted server back.
    Undelete {},
    /// Let it be deleted.
    Unprotect {},
    /// The observer knows that it is not there any more.
    Vanish {
        /// From what.
        evidence: Evidence,
    },
}

/// A fact about a server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Event {
    /// A parked order was given up.
    Abandoned {},
    /// An interface is to have other addresses; those that are new are its own once the guest has them.
    AddressChangeOrdered {
        /// Which.
        nic: Uuid,
        /// What it is to have.
        found: addresses::Found,
    },
    /// An interface is to have what it had, in place of what it was to have.
    AddressRestoreOrdered {
        /// Which.
        nic: Uuid,
        /// What it was to have.
        found: addresses::Found,
    },
    /// The guest could not have other addresses, and has those that it had.
    AddressesKept {
        /// The order's number.
        number: u64,
        /// Why.
        reason: String,
        /// What is there.
        seen: Machine,
    },
    /// It was somebody's machine, and is ours.
    Adopted {
        /// What it is.
        adoption: Box<Adoption>,
    },
    /// It was given to a project.
    Assigned {
        /// The new owner; none is the estate.
        project: Option<Uuid>,
    },
    /// It is started from something else from its next start on.
    BootOrderSet {
        /// What is tried, in turn.
        order: Vec<BootDevice>,
    },
    /// A disc is to be in its drive, or none.
    CdromChangeOrdered {
        /// The disc.
        #[serde(default)]
        image: Option<Box<parts::Image>>,
    },
    /// Its being handed over to another host is to be broken off.
    BreakOffOrdered {},
    /// All of the machine that it is made from is here: it is launched.
    CameIn {},
    /// An order was carried out.
    Confirmed {
        /// The order's number.
        number: u64,
        /// What is there now.
        seen: Machine,
    },
    /// Somebody may open a console of it, with a ticket.
    ConsoleAllowed {
        /// Which, who, and until when.
        console: Console,
    },
    /// A console of it was closed.
    ConsoleClosed {
        /// Names it.
        console: Uuid,
        /// Which it was.
        kind: ConsoleKind,
        /// Who had it open.
        by: String,
        /// For how long it was open.
        seconds: u64,
        /// Why it was closed.
        why: ConsoleEnd,
    },
    /// A console of it was opened, with a ticket that opens no more.
    ConsoleOpened {
        /// Names it.
        console: Uuid,
        /// Which it is.
        kind: ConsoleKind,
        /// Who opened it.
        by: String,
        /// Since when it is open.
        at: DateTime<Utc>,
        /// The network that lends an address to reach it by, as long as it is open.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        network: Option<Uuid>,
    },
    /// It was put away, until its time is over or somebody wants it back.
    Deleted {
        /// Until when it can be had back.
        until: DateTime<Utc>,
    },
    /// It is to have other devices of its host.
    DevicesOrdered {
        /// All that is asked for from then on.
        devices: Vec<DeviceAsk>,
        /// What it takes of its host from then on.
        placement: Box<Placement>,
    },
    /// It is started with this disk from now on, or with what is different of it.
    DiskAdmitted {
        /// The disk.
        disk: parts::Disk,
    },
    /// It is not started with this disk any more.
    DiskDismissed {
        /// Which.
        disk: Uuid,
    },
    /// It was seen for the first time.
    Discovered {
        /// Where.
        origin: Origin,
        /// Who owns it from now on.
        project: Option<Uuid>,
        /// What it is.
        seen: Machine,
    },
    /// It has its place on another host, for its own is dead, and is to be there.
    Evacuated {
        /// What it takes there.
        to: Box<Placement>,
        /// Whether it is to run.
        start: bool,
    },
    /// Its security groups have other rules, which are to be enforced.
    GroupsFollowed {
        /// The rules of those that changed.
        groups: parts::GroupRules,
    },
    /// It has its place on a host, and is to be made there.
    Launched {
        /// With what, and where.
        launch: Box<Launch>,
    },
    /// Its rescue is to end.
    LeaveRescueOrdered {
        /// Whether it runs afterwards.
        start: bool,
    },
    /// So much of it was used on a day.
    Measured {
        /// The day, and what is known of it.
        utilisation: Utilisation,
    },
    /// It stays where it was, as it was.
    MigrationFailed {
        /// The order's number.
        number: u64,
        /// Why.
        reason: String,
        /// What is there.
        seen: Machine,
    },
    /// It is to go to another host, where it has its place as well.
    MigrationOrdered {
        /// What it takes there.
        to: Box<Placement>,
        /// Whether it runs meanwhile.
        live: bool,
        /// How long it may take, and how fast it may be sent.
        #[serde(default, skip_serializing_if = "TransferLimits::is_unsaid")]
        limits: TransferLimits,
    },
    /// The host that it goes to is ready.
    MigrationPrepared {
        /// The order's number.
        number: u64,
        /// Where it lies there.
        landing: Landing,
    },
    /// The host that it was to go to has nothing of it: it is to go on where it was.
    MigrationReturned {
        /// The order's number.
        number: u64,
    },
    /// Its host has handed it over.
    MigrationSent {
        /// The order's number.
        number: u64,
        /// Whether it is known not to run there any more.
        certain: bool,
        /// What its interfaces that are counted have used, where its host said it.
        #[serde(default, skip_serializing_if = "Used::is_empty")]
        used: Used,
    },
    /// The host that it goes to may have its volumes as well.
    MigrationShared {
        /// The order's number.
        number: u64,
    },
    /// It is to have another interface, with these addresses.
    NicAdditionOrdered {
        /// The interface.
        nic: Box<parts::Nic>,
        /// The rules of its security groups.
        #[serde(default, skip_serializing_if = "parts::GroupRules::is_empty")]
        groups: parts::GroupRules,
    },
    /// An interface is to be limited and guarded otherwise.
    NicChangeOrdered {
        /// Which.
        nic: Uuid,
        /// How fast it may send and be sent to; as before when left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bandwidth: Option<Bandwidth>,
        /// How many bytes may pass; as before when left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        quota: Option<Quota>,
        /// The security groups that guard it; as before when left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        security_groups: Option<BTreeSet<Uuid>>,
        /// The rules of those groups.
        #[serde(default, skip_serializing_if = "parts::GroupRules::is_empty")]
        groups: parts::GroupRules,
    },
    /// It is to lose an interface.
    NicRemovalOrdered {
        /// Which.
        nic: Uuid,
    },
    /// The bytes of an interface are to be counted from nothing.
    NicTrafficResetOrdered {
        /// Which.
        nic: Uuid,
    },
    /// Its host is to say what is there of its interfaces.
    NicsReadOrdered {},
    /// It was seen to be different.
    Observed {
        /// What it is now.
        seen: Machine,
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
    /// A password of somebody inside it is to be set.
    PasswordOrdered {
        /// Whose.
        user: String,
        /// The password, sealed.
        password: String,
    },
    /// It cannot be deleted.
    Protected {},
    /// It is to restart.
    RebootOrdered {},
    /// Its root disk is to be made from an image again.
    RebuildOrdered {
        /// From which.
        image: Box<parts::Image>,
        /// Whether it runs, and is to run afterwards.
        start: bool,
    },
    /// It had vanished and was seen again.
    Reappeared {
        /// What it is now.
        seen: Machine,
    },
    /// It is to be ours no more, and to do what it does.
    ReleaseOrdered {},
    /// More became known of how much of it was used on a day; this takes the place of what was known.
    Remeasured {
        /// The day, and what is known of it.
        utilisation: Utilisation,
    },
    /// Nothing of it is to be left on its host.
    RemovalOrdered {},
    /// Nothing of it is left on its host.
    Removed {
        /// The order's number.
        number: u64,
    },
    /// It is called something else.
    Renamed {
        /// Its name.
        name: String,
    },
    /// It runs a small system in memory, with its disks.
    RescueEntered {
        /// Who asked for it.
        by: String,
        /// Since when.
        at: DateTime<Utc>,
    },
    /// It runs that system no more.
    RescueLeft {
        /// Who had asked for it.
        by: String,
        /// For how long it was open.
        seconds: u64,
    },
    /// It is to be started from a small system in memory.
    RescueOrdered {
        /// Who asks for it.
        by: String,
        /// Whether it runs, and is to run afterwards.
        runs: bool,
        /// Which system.
        system: RescueSystem,
        /// The password of that system's user `root`, sealed.
        password: String,
    },
    /// It is to have another size.
    ResizeOrdered {
        /// Virtual CPUs.
        vcpus: u32,
        /// Memory.
        memory_mib: u64,
        /// The flavour that says so; none when none does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        flavour: Option<Uuid>,
        /// What it takes of its host from then on.
        placement: Box<Placement>,
    },
    /// It is to go on.
    ResumeOrdered {},
    /// A parked order goes on.
    RetryOrdered {},
    /// It is to run.
    StartOrdered {},
    /// It is to stop.
    StopOrdered {},
    /// It is to stand still.
    SuspendOrdered {},
    /// Its tags are others.
    Tagged {
        /// Name and value; null removes one.
        tags: BTreeMap<String, Option<String>>,
    },
    /// Its tags are to change.
    TagsOrdered {
        /// Name and value; null removes one.
        tags: BTreeMap<String, Option<String>>,
    },
    /// It was had back.
    Undeleted {},
    /// It can be deleted.
    Unprotected {},
    /// It is not there any more.
    Vanished {
        /// What that was concluded from.
        evidence: Evidence,
    },
}

/// A machine a project rents.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// What is seen of it.
    pub observation: Observation<Machine>,
    /// What a server of our own has besides; none for one of a cloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<Home>,
    /// What is wanted of it.
    pub orders: Orders<Order>,
    /// How much of it was used.
    #[serde(default, skip_serializing_if = "Utilisations::is_empty")]
    pub utilisation: Utilisations,
}

static VERBS: &[Verb] = &[
    Verb::operator(
        "abandon",
        "Gives up the parked order, or breaks off its way to another host; the server stays as it is.",
    ),
    Verb::operator("add-device", "Gives a stopped server of ours more devices of its host."),
    Verb::operator("add-nic", "Gives a server of ours another interface, also while it runs."),
    Verb::system("admit-disk", "Has it started with a disk from now on."),
    Verb::system("adopt", "Its host has it as ours from now on.").creating(),
    Verb::admin("assign", "Gives it to another project."),
    Verb::operator("change-addresses", "Gives an interface of a server of ours other addresses."),
    Verb::operator(
        "change-cdrom",
        "Puts a disc into a server's drive or takes it out, also while it runs.",
    ),
    Verb::operator("change-nic", "Limits an interface of a server of ours, and guards it."),
    Verb::system("come-in", "Reports that all of the machine that it is made from is here."),
    Verb::system("confirm", "Reports that an order was carried out."),
    Verb::system(
        "confirm-kept-addresses",
        "Reports that the guest could not have other addresses.",
    ),
    Verb::system("confirm-migration", "Reports a step of its way to another host."),
    Verb::system("confirm-removal", "Reports that nothing of it is left on its host."),
    Verb::operator("delete", "Puts a server of ours away; for three days it can be had back."),
    Verb::system("dismiss-disk", "Has it not started with a disk any more."),
    Verb::system("enter-console", "Reports that somebody came with a ticket for a console."),
    Verb::operator("evacuate", "Has a server back whose host is dead, where its disks are shared."),
    Verb::system("follow-groups", "Has the rules of its security groups enforced as they are now."),
    Verb::system("give-up", "Reports that the machine that it is made from goes back."),
    Verb::operator("launch", "Makes a server on one of our hosts.").creating(),
    Verb::system("leave-console", "Reports that a console was closed."),
    Verb::operator("leave-rescue", "Ends a server's rescue; it is then as it was before."),
    Verb::operator("measure", "Says how much of it was used on a day."),
    Verb::operator("migrate", "Lets a server of ours go to another host, running or stopped."),
    Verb::system("notice", "Reports that a server of ours runs, or does not any more."),
    Verb::system("observe", "Reports what was seen in the cloud.").creating(),
    Verb::operator(
        "open-console",
        "Gives a ticket for a server's screen, serial line or remote desktop, for one use within a minute.",
    ),
    Verb::system("park", "Reports that an order keeps failing."),
    Verb::operator("protect", "Keeps a server of ours from being deleted."),
    Verb::operator("purge", "Removes a deleted server for good, before its time."),
    Verb::operator("read-nics", "Has its host say what its interfaces have used by now."),
    Verb::operator("reboot", "Restarts a running server."),
    Verb::operator("rebuild", "Makes a server's root disk from an image again."),
    Verb::admin("release", "Has a server that was adopted ours no more; it does what it does."),
    Verb::operator("remove-device", "Takes a device of its host from a stopped server of ours."),
    Verb::operator("remove-nic", "Takes an interface from a server of ours, also while it runs."),
    Verb::operator("rename", "Calls a server of ours something else."),
    Verb::operator(
        "rescue",
        "Starts it from a small system in memory, with its disks, to be repaired.",
    ),
    Verb::operator("reset-nic-traffic", "Counts the bytes of an interface from nothing."),
    Verb::operator("resize", "Gives a stopped server of ours other processors and another memory."),
    Verb::operator("resume", "Lets a suspended server go on."),
    Verb::operator("retry", "Goes on with the parked order."),
    Verb::operator(
        "set-boot-order",
        "Says what a server of ours is started from, and what is tried next.",
    ),
    Verb::operator(
        "set-password",
        "Sets a password inside a server of ours, through its guest agent.",
    ),
    Verb::operator("start", "Starts a stopped server."),
    Verb::operator("stop", "Stops a running server."),
    Verb::operator("suspend", "Makes a server of ours stand still, in its host's memory."),
    Verb::operator("tag", "Sets or removes tags, of a server of a cloud there."),
    Verb::operator("undelete", "Has a deleted server back."),
    Verb::operator("unprotect", "Lets a server of ours be deleted."),
    Verb::system("vanish", "Reports that it is not in the cloud any more."),
];

impl Server {
    /// What is seen of a server that is there and that nothing is ordered of.
    fn free(&self, verb: &str) -> Result<&Machine, Refusal> {
        let Some(seen) = self.observation.seen.as_ref().filter(|_| self.observation.is_there())
        else {
            return Err(Refusal::wrong_state(verb, self.status()));
        };
        if self.is_deleted() {
            return Err(Refusal::wrong_state(verb, self.status()));
        }
        self.orders.ensure_free()?;
        if let Some(home) = &self.home {
            home.can(verb, seen.power)?;
        }
        if self.rescued().is_some() && verb != "stop" {
            let detail = format!("{verb} is not possible while it is rescued: leave-rescue first");
            return Err(Refusal::new(&codes::WRONG_STATE, detail));
        }
        Ok(seen)
    }

    /// What is seen of a server of ours once it does this, if that is news. While an order is worked
    /// on its report says what became of it: what is seen meanwhile is half of it.
    fn noticed(&self, number: u64, power: Power) -> Option<Machine> {
        let home = self.home.as_ref().filter(|home| !home.removed)?;
        let is_worked_on = self.orders.out.as_ref().is_some_and(|out| out.parked.is_none());
        let seen = self.observation.seen.as_ref().filter(|seen| seen.power != power)?;
        let is_there = self.observation.is_there() && home.deleted_until.is_none();
        let is_late = number != self.orders.issued;
        (is_there && !is_worked_on && !is_late).then(|| Machine { power, ..seen.clone() })
    }

    fn is_deleted(&self) -> bool {
        self.home.as_ref().is_some_and(|home| home.removed || home.deleted_until.is_some())
    }

    /// Whether the order that is out has this number and removes it.
    fn is_removed_by(&self, number: u64) -> bool {
        let removes =
            |out: &Outstanding<Order>| matches!(out.order, Order::Release {} | Order::Remove {});
        self.orders.is_out(number) && self.orders.out.as_ref().is_some_and(removes)
    }

    /// A server of ours that is not gone; one of a cloud is the wrong thing to say this of.
    fn ours(&self, verb: &str) -> Result<&Home, Refusal> {
        match &self.home {
            Some(home) if !home.removed => Ok(home),
            Some(_) => Err(Refusal::wrong_state(verb, self.status())),
            None => {
                let detail = format!("{verb}: only a server on a host of ours");
                Err(Refusal::new(&codes::UNSUPPORTED, detail))
            }
        }
    }

    /// A deleted server of ours that nothing is ordered of.
    fn binned(&self, verb: &str) -> Result<(), Refusal> {
        if self.ours(verb)?.deleted_until.is_none() {
            return Err(Refusal::wrong_state(verb, self.status()));
        }
        self.orders.ensure_free()
    }

    fn at_home(&mut self, change: impl FnOnce(&mut Home)) {
        if let Some(home) = &mut self.home {
            change(home);
        }
    }

    fn see(&mut self, seen: Machine) {
        if seen.power == Power::Stopped {
            self.at_home(|home| home.may_have_grown = false);
        }
        self.observation.seen = Some(seen);
        self.observation.gone = None;
    }
}

impl Decider for Server {
    const KIND: &'static str = Machine::KIND;
    const PLURAL: &'static str = Machine::PLURAL;
    const SUMMARY: &'static str = Machine::SUMMARY;
    type Command = Command;
    type Event = Event;
    type Order = Order;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command, stamp: &Stamp) -> Result<Vec<Event>, Refusal> {
        Ok(match command {
            Command::Abandon {} => match self.gives_up()? {
                Some(events) => events,
                None => {
                    self.orders.ensure_parked()?;
                    self.abandoned()
                }
            },
            Command::AddDevice { device, found } => self.add_device(&device, found)?,
            Command::AddNic { nic, found } => self.add_nic(&nic, found)?,
            Command::AdmitDisk { host, disk } => {
                let home = self.ours("attach a disk")?;
                if self.is_deleted() || self.observation.seen.is_none() {
                    return Err(Refusal::wrong_state("attach a disk", self.status()));
                }
                self.stays("attach a disk")?;
                if home.placement.host != host {
                    let detail = "server: it is on another host than the disk";
                    return Err(Refusal::new(&codes::INVALID_FIELD, detail));
                }
                let disks = &home.parts.disks;
                let known = disks.iter().find(|known| known.id == disk.id);
                if known.is_none() {
                    self.ensure_pluggable(home, "attach a disk")?;
                }
                if known.is_none() && disks.len() >= parts::DISKS_MAX {
                    let detail =
                        format!("server: it has {} disks, the most there are", disks.len());
                    return Err(Refusal::new(&codes::INVALID_FIELD, detail));
                }
                let disk = match known {
                    Some(known) => parts::Disk { from_image: known.from_image, ..disk },
                    None => disk,
                };
                if known == Some(&disk) { vec![] } else { vec![Event::DiskAdmitted { disk }] }
            }
            Command::Adopt { adoption } => self.adopt(adoption)?,
            Command::ComeIn {} => self.come_in()?,
            Command::GiveUp {} => self.give_up()?,
            Command::DismissDisk { disk } => {
                let has = self.home.iter().flat_map(|home| &home.parts.disks);
                let has = has.into_iter().any(|known| known.id == disk);
                self.stays("detach a disk")?;
                if let Some(home) = self.home.as_ref().filter(|_| has) {
                    self.ensure_pluggable(home, "detach a disk")?;
                }
                if has { vec![Event::DiskDismissed { disk }] } else { vec![] }
            }
            Command::Assign { .. } if self.observation.seen.is_none() && self.home.is_none() => {
                return Err(Refusal::wrong_state("assign", self.status()));
            }
            Command::Assign { project } if project == self.observation.project => vec![],
            Command::Assign { project } => vec![Event::Assigned { project }],
            Command::ChangeAddresses(change) => self.change_addresses(change)?,
            Command::ChangeCdrom { image, found } => self.change_cdrom(image, found)?,
            Command::ChangeNic(change) => self.change_nic(change)?,
            Command::Confirm { number, seen }
                if self.orders.is_out(number)
                    && !self.is_removed_by(number)
                    && !self.is_on_its_way() =>
            {
                self.confirmed(number, seen, stamp)
            }
            Command::Park { number, reason } if self.orders.is_worked_on(number) => {
                vec![Event::Parked { number, reason }]
            }
            Command::ConfirmKeptAddresses { number, reason, seen } => {
                self.kept_addresses(number, reason, seen)
            }
            Command::ConfirmMigration { number, step } => self.stepped(number, step),
            Command::ConfirmRemoval { number } if self.is_removed_by(number) => {
                vec![Event::Removed { number }]
            }
            // A report about an order that is settled already says nothing new.
            Command::Confirm { .. } | Command::ConfirmRemoval { .. } | Command::Park { .. } => {
                vec![]
            }
            Command::Delete { .. } if self.home.is_some() && self.is_deleted() => vec![],
            Command::Delete { stop } => {
                let protected = self.ours("delete")?.protected;
                let stopped = self.free("delete")?.power == Power::Stopped;
                let no = |detail| Err(Refusal::new(&codes::WRONG_STATE, detail));
                if protected {
                    return no("it is protected: unprotect it first");
                }
                let deleted = Event::Deleted { until: stamp.now + home::BIN };
                match (stopped, stop) {
                    (true, _) => vec![deleted],
                    (false, true) => vec![deleted, Event::StopOrdered {}],
                    (false, false) => return no("it is not stopped: stop it first, or say `stop`"),
                }
            }
            Command::Evacuate { host_is_down, placement, .. } => {
                self.evacuate(host_is_down, placement, stamp)?
            }
            Command::FollowGroups { groups } => self.follow_groups(groups)?,
            Command::Launch(_) if self.home.is_some() || self.observation.seen.is_some() => {
                return Err(Refusal::wrong_state("launch", self.status()));
            }
            Command::Launch(launch) => {
                launch.check()?;
                vec![Event::Launched { launch }]
            }
            Command::EnterConsole { ticket } => self.enter_console(&ticket, stamp)?,
            Command::LeaveConsole { console, why } => self.leave_console(console, why, stamp),
            Command::LeaveRescue {} => self.leave_rescue()?,
            Command::Measure { .. } if self.observation.seen.is_none() => {
                return Err(Refusal::wrong_state("measure", self.status()));
            }
            // Also of what is gone by now: numbers of a day come after it.
            Command::Measure { utilisation } => {
                match self.utilisation.news(&utilisation, stamp)? {
                    News::None => vec![],
                    News::Day => vec![Event::Measured { utilisation }],
                    News::More => vec![Event::Remeasured { utilisation }],
                }
            }
            Command::Migrate { limits, placement, .. } => self.migrate(limits, placement)?,
            Command::Notice { number, power } => match self.noticed(number, power) {
                Some(seen) => {
                    vec![Event::Observed { seen, fields: vec!["power".to_owned()], actor: None }]
                }
                None => vec![],
            },
            Command::Observe { origin, project, seen, actor } => {
                match self.observation.notice(&origin, &seen)? {
                    Noticed::Same => vec![],
                    Noticed::New => vec![Event::Discovered { origin, project, seen }],
                    Noticed::Different(fields) => vec![Event::Observed { seen, fields, actor }],
                    Noticed::Back => vec![Event::Reappeared { seen }],
                }
            }
            Command::OpenConsole { kind, id, ticket } => {
                self.open_console(kind, id, ticket, stamp)?
            }
            Command::Protect {} if self.ours("protect")?.protected => vec![],
            Command::Protect {} => vec![Event::Protected {}],
            // What was never there has nothing that could be had back.
            Command::Purge {} if self.home.is_some() && self.observation.seen.is_none() => {
                self.ours("purge")?;
                self.ensure_here("purge")?;
                self.orders.ensure_free()?;
                vec![self.given_up()]
            }
            Command::Purge {} => {
                self.binned("purge")?;
                vec![Event::RemovalOrdered {}]
            }
            Command::ReadNics {} => self.read_nics()?,
            Command::Reboot {} => match self.free("reboot")?.power {
                Power::Running => vec![Event::RebootOrdered {}],
                _ => return Err(Refusal::wrong_state("reboot", self.status())),
            },
            Command::Release {} => self.release()?,
            Command::RemoveDevice { device, found } => self.remove_device(&device, found)?,
            Command::RemoveNic { nic } => self.remove_nic(nic)?,
            Command::Rebuild { image: _, stop, found } => self.rebuild(stop, found)?,
            Command::Rename { name } => {
                let home = self.ours("rename")?;
                check_name(&name)?;
                if name == home.name { vec![] } else { vec![Event::Renamed { name }] }
            }
            Command::Rescue { system, password } => self.rescue(system, password, stamp)?,
            Command::ResetNicTraffic { nic } => self.reset_nic_traffic(nic)?,
            Command::Resize { vcpus, memory_mib, flavour, placement } => {
                self.resize(vcpus, memory_mib, flavour, placement)?
            }
            Command::Resume {} => {
                self.ours("resume")?;
                match self.free("resume")?.power {
                    Power::Running => vec![],
                    Power::Suspended => vec![Event::ResumeOrdered {}],
                    _ => return Err(Refusal::wrong_state("resume", self.status())),
                }
            }
            Command::Retry {} => {
                self.orders.ensure_parked()?;
                vec![Event::RetryOrdered {}]
            }
            Command::SetBootOrder { order } => self.set_boot_order(order)?,
            Command::SetPassword { user, password } => self.set_password(user, password)?,
            Command::Start {} => match self.free("start")?.power {
                Power::Running | Power::Starting => vec![],
                Power::Suspended => {
                    let detail = "it is suspended: resume it, or stop it first";
                    return Err(Refusal::new(&codes::WRONG_STATE, detail));
                }
                _ => vec![Event::StartOrdered {}],
            },
            Command::Stop {} => match self.free("stop")?.power {
                // A small system that turned itself off is left by this.
                Power::Stopped | Power::Stopping if self.rescued().is_none() => vec![],
                _ => vec![Event::StopOrdered {}],
            },
            Command::Suspend {} => {
                self.ours("suspend")?;
                match self.free("suspend")?.power {
                    Power::Suspended => vec![],
                    Power::Running => vec![Event::SuspendOrdered {}],
                    _ => return Err(Refusal::wrong_state("suspend", self.status())),
                }
            }
            Command::Tag { tags } if self.home.is_some() => self.ours("tag")?.tag(tags)?,
            Command::Tag { tags } => {
                let seen = self.free("tag")?;
                check_tags(&tags)?;
                if tags.iter().all(|(name, value)| seen.tags.get(name) == value.as_ref()) {
                    vec![]
                } else {
                    vec![Event::TagsOrdered { tags }]
                }
            }
            Command::Undelete {} => {
                self.binned("undelete")?;
                vec![Event::Undeleted {}]
            }
            Command::Unprotect {} if self.ours("unprotect")?.protected => {
                vec![Event::Unprotected {}]
            }
            Command::Unprotect {} => vec![],
            Command::Vanish { evidence } if self.observation.is_there() => {
                vec![Event::Vanished { evidence }]
            }
            Command::Vanish { .. } => vec![],
        })
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::Abandoned {} => {
                let grows = self.is_growing();
                self.at_home(|home| {
                    home.end_move();
                    home.may_have_grown |= grows;
                });
                self.orders.settle();
            }
            Event::AddressChangeOrdered { nic, found } => {
                self.orders.issue(Order::ChangeAddresses { nic, found });
            }
            Event::AddressRestoreOrdered { nic, found } => {
                self.orders.issue(Order::RestoreAddresses { nic, found });
            }
            Event::AddressesKept { seen, .. } => {
                self.orders.settle();
                self.see(seen);
            }
            Event::Adopted { adoption } => {
                self.observation.project = adoption.project;
                self.observation.seen = None;
                let digest = adoption.machine.digest.clone();
                self.home = Some(Home::adopted(*adoption));
                self.orders.issue(Order::Adopt { digest });
            }
            Event::Assigned { project } => self.observation.project = project,
            Event::CameIn {} => {
                self.at_home(|home| {
                    if let Some(coming) = &mut home.comes {
                        coming.waits = false;
                    }
                });
                self.orders.issue(Order::Launch {});
            }
            Event::BootOrderSet { order } => self.at_home(|home| home.boot_order = order),
            Event::CdromChangeOrdered { image } => self.order_cdrom(image),
            Event::Confirmed { seen, .. } => {
                let order = self.orders.out.take().map(|out| out.order);
                self.started(order.as_ref());
                match order {
                    Some(Order::ChangeAddresses { nic, found }) => {
                        self.at_home(|home| home.parts.readdress(nic, found));
                    }
                    Some(Order::ChangeCdrom { image }) => self.cdrom_changed(image),
                    Some(Order::ChangeDevices { devices, placement }) => self.at_home(|home| {
                        home.spec.devices = devices;
                        home.placement = placement;
                    }),
                    Some(Order::Rebuild { image, .. }) => {
                        self.at_home(|home| home.parts.rebuilt(*image));
                    }
                    Some(Order::RemoveNic { nic }) => self.at_home(|home| home.parts.drop_nic(nic)),
                    Some(Order::Resize { vcpus, memory_mib, flavour, placement }) => {
                        self.at_home(|home| {
                            (home.spec.vcpus, home.spec.memory_mib) = (vcpus, memory_mib);
                            home.flavour = flavour;
                            home.placement = placement;
                        });
                    }
                    _ => {}
                }
                self.at_home(Home::end_move);
                self.orders.settle();
                self.see(seen);
            }
            Event::ConsoleAllowed { .. }
            | Event::ConsoleClosed { .. }
            | Event::ConsoleOpened { .. } => self.remember_console(event),
            Event::DevicesOrdered { devices, placement } => {
                self.orders.issue(Order::ChangeDevices { devices, placement });
            }
            Event::Deleted { until } => self.at_home(|home| home.deleted_until = Some(until)),
            Event::Launched { launch } => {
                self.observation.project = launch.project;
                self.home = Home::of(*launch);
                if !self.waits() {
                    self.orders.issue(Order::Launch {});
                }
            }
            Event::LeaveRescueOrdered { start } => {
                self.orders.issue(Order::LeaveRescue { start });
            }
            Event::GroupsFollowed { groups } => {
                self.at_home(|home| home.parts.follow(groups));
                self.orders.issue(Order::ChangeNics {});
            }
            Event::NicAdditionOrdered { nic, groups } => {
                self.orders.issue(Order::AddNic { nic: nic.id });
                self.at_home(|home| home.parts.add_nic(*nic, groups));
            }
            Event::NicChangeOrdered { nic, bandwidth, quota, security_groups, groups } => {
                self.at_home(|home| {
                    home.parts.change_nic(nic, bandwidth, quota, security_groups, groups);
                    home.follow_nic(nic);
                });
                self.orders.issue(Order::ChangeNics {});
            }
            Event::NicRemovalOrdered { nic } => self.orders.issue(Order::RemoveNic { nic }),
            Event::NicTrafficResetOrdered { nic } => {
                self.reset_traffic(nic);
                self.orders.issue(Order::ChangeNics {});
            }
            Event::NicsReadOrdered {} => self.orders.issue(Order::ChangeNics {}),
            Event::PasswordOrdered { user, password } => {
                self.orders.issue(Order::SetPassword { user, password });
            }
            Event::Protected {} => self.at_home(|home| home.protected = true),
            Event::ReleaseOrdered {} => self.orders.issue(Order::Release {}),
            Event::RemovalOrdered {} => self.orders.issue(Order::Remove {}),
            Event::Removed { .. } => {
                self.orders.settle();
                self.at_home(|home| home.removed = true);
            }
            Event::Renamed { name } => self.at_home(|home| home.name = name),
            Event::RescueEntered { at, .. } => self.at_home(|home| {
                if let Some(rescue) = &mut home.rescue {
                    rescue.since = Some(at);
                }
            }),
            Event::RescueLeft { .. } => self.at_home(|home| home.rescue = None),
            Event::RescueOrdered { by, runs, system, password } => {
                self.at_home(|home| home.rescue = Some(Rescue { by, since: None, runs }));
                self.orders.issue(Order::Rescue { system, password });
            }
            Event::ResizeOrdered { vcpus, memory_mib, flavour, placement } => {
                self.orders.issue(Order::Resize { vcpus, memory_mib, flavour, placement });
            }
            Event::ResumeOrdered {} => self.orders.issue(Order::Resume {}),
            Event::SuspendOrdered {} => self.orders.issue(Order::Suspend {}),
            Event::Tagged { tags } => self.at_home(|home| home.retag(tags)),
            Event::Undeleted {} => self.at_home(|home| home.deleted_until = None),
            Event::Unprotected {} => self.at_home(|home| home.protected = false),
            Event::DiskAdmitted { disk } => self.at_home(|home| home.parts.admit(disk)),
            Event::DiskDismissed { disk } => {
                self.at_home(|home| home.parts.disks.retain(|known| known.id != disk));
            }
            Event::BreakOffOrdered {}
            | Event::Evacuated { .. }
            | Event::MigrationFailed { .. }
            | Event::MigrationOrdered { .. }
            | Event::MigrationPrepared { .. }
            | Event::MigrationReturned { .. }
            | Event::MigrationSent { .. }
            | Event::MigrationShared { .. } => self.moved(event),
            Event::Discovered { origin, project, seen } => {
                self.observation.origin = Some(origin);
                self.observation.project = project;
                self.see(seen);
            }
            Event::Measured { utilisation } | Event::Remeasured { utilisation } => {
                self.utilisation.take(utilisation);
            }
            Event::Observed { seen, .. } | Event::Reappeared { seen } => self.see(seen),
            Event::Parked { reason, .. } => self.orders.park(reason),
            Event::RebootOrdered {} => self.orders.issue(Order::Reboot {}),
            Event::RebuildOrdered { image, start } => {
                self.orders.issue(Order::Rebuild { image, start });
            }
            Event::RetryOrdered {} => self.orders.retry(),
            Event::StartOrdered {} => self.orders.issue(Order::Start {}),
            Event::StopOrdered {} => self.orders.issue(Order::Stop {}),
            Event::TagsOrdered { tags } => self.orders.issue(Order::SetTags { tags }),
            Event::Vanished { evidence } => {
                self.observation.gone = Some(evidence);
                // There is nothing left to order anything of.
                self.orders.settle();
            }
        }
        self
    }

    fn order(&self) -> Option<Outstanding<Order>> {
        self.orders.out.clone()
    }

    fn status(&self) -> &'static str {
        match &self.orders.out {
            Some(Outstanding { parked: Some(_), .. }) => "parked",
            Some(Outstanding { order: Order::AddNic { .. }, .. }) => "adding-nic",
            Some(Outstanding { order: Order::Adopt { .. }, .. }) => "adopting",
            Some(Outstanding { order: Order::ChangeAddresses { .. }, .. }) => "changing-addresses",
            Some(Outstanding { order: Order::ChangeCdrom { .. }, .. }) => "changing-cdrom",
            Some(Outstanding { order: Order::ChangeDevices { .. }, .. }) => "changing-devices",
            Some(Outstanding { order: Order::ChangeNics {}, .. }) => "changing-nics",
            Some(Outstanding { order: Order::Launch {}, .. }) => "launching",
            Some(Outstanding { order: Order::LeaveRescue { .. }, .. }) => "leaving-rescue",
            Some(Outstanding {
                order:
                    Order::Arrive { .. }
                    | Order::BreakOff {}
                    | Order::Receive {}
                    | Order::Send { .. }
                    | Order::Share {}
                    | Order::TakeBack {},
                ..
            }) => "migrating",
            Some(Outstanding { order: Order::Release {}, .. }) => "releasing",
            Some(Outstanding { order: Order::RemoveNic { .. }, .. }) => "removing-nic",
            Some(Outstanding { order: Order::Rescue { .. }, .. }) => "rescuing",
            Some(Outstanding { order: Order::Resize { .. }, .. }) => "resizing",
            Some(Outstanding { order: Order::RestoreAddresses { .. }, .. }) => {
                "restoring-addresses"
            }
            Some(Outstanding { order: Order::Resume {}, .. }) => "resuming",
            Some(Outstanding { order: Order::Suspend {}, .. }) => "suspending",
            Some(Outstanding { order: Order::Rebuild { .. }, .. }) => "rebuilding",
            Some(Outstanding { order: Order::Remove {}, .. }) => "removing",
            Some(Outstanding { order: Order::Start {}, .. }) => "starting",
            Some(Outstanding { order: Order::Stop {}, .. }) => "stopping",
            Some(Outstanding { order: Order::Reboot {}, .. }) => "rebooting",
            _ => match &self.home {
                Some(Home { removed: true, .. }) => "gone",
                Some(_) if self.waits() => "moving-in",
                Some(Home { deleted_until: Some(_), .. }) => "deleted",
                Some(_) if self.rescued().is_some() => "rescued",
                _ => self.observation.status(),
            },
        }
    }

    fn facets(&self) -> Facets {
        let mut facets = self.observation.facets();
        if let Some(home) = &self.home {
            home.facets(&mut facets);
        }
        facets
    }

    fn on_host(&self) -> Option<OnHost> {
        let home = self.home.as_ref()?;
        let out = self.orders.out.as_ref().map(|out| &out.order);
        let placement = match (out, &home.moving) {
            (Some(Order::Receive {}), Some(moving)) => &moving.to,
            _ => &home.placement,
        };
        let server = Some(placement.holding.server.uuid());
        Some(OnHost { host: placement.host.uuid(), server })
    }

    fn stores(&self) -> Vec<Uuid> {
        let home = self.home.as_ref().filter(|_| self.observation.seen.is_none());
        let disks = home.into_iter().flat_map(|home| &home.parts.disks);
        let mut stores: Vec<_> = disks.filter_map(|disk| disk.source.as_ref()?.store()).collect();
        stores.sort_unstable();
        stores.dedup();
        stores
    }

    fn volumes(&self) -> Vec<Uuid> {
        let home = self.home.as_ref().filter(|_| self.observation.seen.is_none());
        let disks = home.into_iter().flat_map(|home| &home.parts.disks);
        disks.filter_map(|disk| disk.source.as_ref()?.of_snapshot()).collect()
    }

    fn companions(&self, events: &[Event]) -> Vec<Companion> {
        let launching = self
            .orders
            .out
            .as_ref()
            .is_some_and(|out| matches!(out.order, Order::Adopt { .. } | Order::Launch {}));
        let of = |event: &Event| {
            let kept = self.kept_after(event).zip(self.home.as_ref());
            let kept = kept.map(|(holding, home)| home.keep(&holding));
            let made = matches!(event, Event::Confirmed { .. }) && launching;
            let made = self.home.iter().filter(move |_| made);
            let made = made.flat_map(|home| home.parts.tell_disks("made-with-server"));
            let of_home = Home::companions(event, self.home.as_ref()).into_iter();
            let of_home = of_home.chain(kept).chain(made).chain(self.nic_companion(event));
            let of_home = of_home.chain(self.address_companion(event)).chain(self.moves(event));
            let of_home = of_home.chain(self.tell_move(event, launching));
            of_home.chain(Self::adoption_companions(event)).chain(self.console_companion(event))
        };
        events.iter().flat_map(of).collect()
    }

    fn claims(&self, events: &[Event]) -> Vec<String> {
        events
            .iter()
            .filter_map(|event| match event {
                Event::Discovered { origin, .. } => Some(origin.claim(Self::KIND)),
                _ => None,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
