//! Servers that go to another host, come from one, or are had back from one that is dead.
//!
//! What a server runs on is never guessed. It is handed over by one call, after which it is off here
//! ([`Left::Gone`]), runs here as before ([`Left::Runs`]), or is held by a daemon that died in between
//! ([`Left::Unsure`]). It is started here only when its order says that it runs nowhere else.

use std::{collections::BTreeSet, time::Duration};

use adapters_libvirt::{
    Connection, Destination, Domain, Fault, State,
    description::{Description, DiskDevice},
};
use commands::ports::{DriverFault, HostTask, Report};
use domain::compute::{
    host,
    server::{
        home::Home,
        migrate::{Landing, MigrationStep, Moving},
    },
};
use serde_json::json;
use uuid::Uuid;

use super::{
    Inner, Step, Work,
    fault::{chain, libvirt},
    find, power_off, state,
    transfer::Left,
    undefine, wanted,
};
use crate::storage::{files, seed};

/// Why a server stays that was to go while it is stopped.
pub(super) const RUNS: &str = "it runs, and was to go while it is stopped";
/// Longest reason, in bytes: what daemons say of each other may be long.
const REASON_BYTES_MAX: usize = 2_048;

/// How a host takes servers that run elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Its libvirt daemon, as other hosts' reach it: `qemu+tls://kvm-2.example/system`.
    pub libvirt: String,
    /// Where memory is sent to, such as `tcp://10.0.0.5`; as libvirt finds it when it is none.
    pub memory: Option<String>,
}

pub(super) fn report(number: u64, step: &MigrationStep) -> Report {
    Report { verb: "confirm-migration", body: json!({"number": number, "step": step}) }
}

pub(super) fn moving(home: &Home) -> Result<&Moving, DriverFault> {
    let moving = home.moving.as_ref();
    moving.ok_or_else(|| DriverFault::Unexpected("a server that goes nowhere".to_owned()))
}

impl Inner {
    /// Makes ready for a server that comes from another host: its disks are looked at, its seed and its
    /// rules are there before it is.
    pub(super) async fn receive(&self, work: &Work<'_>) -> Result<Report, DriverFault> {
        let mut home = work.home.clone();
        home.placement = moving(work.home)?.to.clone();
        let work = Work { home: &home, ..*work };
        // What can never run here is said before anything is made.
        self.describe(&work).await?;
        self.make_room(&work).await?;
        let landing = self.landing(&work).await?;
        self.furnish(&work).await?;
        if moving(work.home)?.live {
            self.activate(&work).await?;
        }
        Ok(report(work.number, &MigrationStep::Prepared { landing }))
    }

    /// Where its files are here. A disk that is not there is one that its host has elsewhere.
    async fn landing(&self, work: &Work<'_>) -> Result<Landing, DriverFault> {
        let layout = self.lies().await?;
        let mut landing = Landing {
            folder: self.options.folder.display().to_string(),
            libvirt: self.options.reached.as_ref().map(|reached| reached.libvirt.clone()),
            memory: self.options.reached.as_ref().and_then(|reached| reached.memory.clone()),
            ..Landing::default()
        };
        for disk in &work.home.parts.disks {
            let path = layout.disk(disk)?;
            if !self.is_there(disk, &path).await? {
                let why = format!("{} is not there: is the storage the same?", path.display());
                return Err(DriverFault::Rejected(why));
            }
            landing.disks.insert(disk.id, path.display().to_string());
        }
        Ok(landing)
    }

    /// Its seed and its rules are there.
    async fn furnish(&self, work: &Work<'_>) -> Result<(), DriverFault> {
        let documents = wanted::documents(work.server, work.home, work.userdata)?;
        let path = self.layout.seed(work.server);
        let write = async { Ok(seed::write(&path, documents.files()).await?) };
        self.step(Step::Seed, work.server, write).await?;
        if let Some(cdrom) = &work.home.parts.cdrom {
            self.lay_disc(work.server, cdrom).await?;
        }
        self.plug(work).await
    }

    /// Lets the host that a server goes to have its volumes as well, for as long as it is under way.
    pub(super) async fn share(&self, work: &Work<'_>) -> Result<Report, DriverFault> {
        self.activate(work).await?;
        Ok(report(work.number, &MigrationStep::Shared {}))
    }

    /// Hands a server over to the host that it goes to.
    pub(super) async fn send(
        &self,
        work: &Work<'_>,
        landing: &Landing,
    ) -> Result<Report, DriverFault> {
        let server = work.server;
        let copies = !work.home.local_disks().is_empty();
        let Moving { live, limits, .. } = *moving(work.home)?;
        let patience = Duration::from_secs(limits.seconds(copies).into());
        if copies && !live {
            return self.carry(work, landing, patience).await;
        }
        // One that was begun by an agent that died goes on without it.
        let left = self.left(server, patience).await?;
        if let Some(ended) = self.ended(work, left).await? {
            return Ok(ended);
        }
        if !live {
            return self.stays(work, RUNS.to_owned()).await;
        }
        let wire = self.wire.get().await?;
        let send = async {
            let Some(domain) = find(&wire, server).await? else { return Ok(None) };
            let there = self.destination(&wire, &domain, work, landing).await?;
            Ok(self.hand_over((server, domain), there, patience).await?.err())
        };
        // Whatever is said of it, what is left here tells.
        let fault = self.step(Step::Send, server, send).await?;
        let patience = match &fault {
            // Its time is over.
            Some(Fault::Late(_)) => Duration::ZERO,
            _ => patience,
        };
        let left = self.left(server, patience).await?;
        match self.ended(work, left).await? {
            Some(ended) => Ok(ended),
            None => self.stays(work, why(server, fault)).await,
        }
    }

    /// What is said of a server that does not run here as before any more; none of one that does.
    pub(super) async fn ended(
        &self,
        work: &Work<'_>,
        left: Left,
    ) -> Result<Option<Report>, DriverFault> {
        let certain = match left {
            Left::Runs => return Ok(None),
            Left::Moved => true,
            // What was copied of its disks may not be all of it: the other host looks whether it runs.
            Left::Gone => work.home.local_disks().is_empty(),
            Left::Unsure => false,
        };
        if certain {
            self.deactivate(work.server).await?;
        }
        self.sent(work, certain).await.map(Some)
    }

    /// It was handed over, and what was counted of it goes with it.
    pub(super) async fn sent(&self, work: &Work<'_>, certain: bool) -> Result<Report, DriverFault> {
        let used = self.used(work).await?;
        Ok(report(work.number, &MigrationStep::Sent { certain, used }))
    }

    /// It is as it was.
    pub(super) async fn stays(
        &self,
        work: &Work<'_>,
        mut reason: String,
    ) -> Result<Report, DriverFault> {
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        let seen = Box::new(self.seen(work.server, work.home).await?);
        Ok(report(work.number, &MigrationStep::Stays { reason, seen }))
    }

    /// The machine as it is to be on the other host: the same, with its files where they lie there, and bound
    /// to what it has there.
    pub(super) async fn destination(
        &self,
        wire: &Connection,
        domain: &Domain,
        work: &Work<'_>,
        landing: &Landing,
    ) -> Result<Destination, DriverFault> {
        let layout = self.lies().await?;
        let mut xml = wire.migratable_xml(domain).await.map_err(libvirt)?;
        let copied = copied(self, work, &xml)?;
        xml = without_chains(&xml);
        let Moving { live, limits, to, .. } = moving(work.home)?;
        if *live {
            xml = rebound(&xml, &wanted::bindings(&to.holding));
        }
        // Seeds, sockets and whatever else the host keeps of its servers.
        let mut lies = |here: &str, there: &str| xml = elsewhere(&xml, here, there);
        lies(&format!("{}/", self.options.folder.display()), &format!("{}/", landing.folder));
        for disk in &work.home.parts.disks {
            if let Some(there) = landing.disks.get(&disk.id) {
                lies(&layout.disk(disk)?.display().to_string(), there);
            }
        }
        let daemon = landing.libvirt.clone().ok_or_else(|| {
            let why = "the host that it goes to takes no servers that run: its agent was not told \
                       how its libvirt is reached";
            DriverFault::Rejected(why.to_owned())
        })?;
        Ok(Destination {
            daemon,
            memory: landing.memory.clone(),
            xml,
            mib_per_second: limits.mib_per_second.map(u64::from),
            copied,
        })
    }

    /// Has a server that was sent here, or whose host is dead. Nothing when it is there; the report when
    /// it is not, and nobody knows whether it runs elsewhere.
    pub(super) async fn arrive(
        &self,
        work: &Work<'_>,
        start: bool,
        certain: bool,
    ) -> Result<Option<Report>, DriverFault> {
        let server = work.server;
        let wire = self.wire.get().await?;
        let there = find(&wire, server).await?;
        let runs = match &there {
            Some(domain) => !matches!(state(&wire, domain).await?, State::Off | State::Paused),
            None => false,
        };
        if !certain && !runs {
            // What waits here for memory that never comes.
            if let Some(domain) = there {
                self.step(Step::Stop, server, power_off(&wire, &domain)).await?;
                self.step(Step::Undefine, server, undefine(&wire, &domain)).await?;
            }
            return Ok(Some(report(work.number, &MigrationStep::Lost {})));
        }
        let machine = self.describe(work).await?;
        self.landing(work).await?;
        self.furnish(work).await?;
        if start {
            self.run(work, &machine).await?;
        } else {
            self.end_carrier(server).await?;
            self.step(Step::Define, server, self.define(&wire, &machine)).await?;
        }
        Ok(None)
    }

    /// Leaves nothing of a server that is elsewhere now. Its disks are where both hosts
    /// reach them, or were copied, and then these are removed.
    pub(super) async fn clear_server(&self, task: &HostTask) -> Result<Report, DriverFault> {
        let order: host::Order = serde_json::from_value(task.order.clone())
            .map_err(|fault| DriverFault::Unexpected(fault.to_string()))?;
        let host::Order::Clear { server, disks, .. } = order;
        let server = server.uuid();
        let _turn = self.turn(server).await;
        let files = |_| async {
            for disk in disks {
                self.storage.delete(disk).await?;
            }
            Ok(())
        };
        self.forget(server, files).await?;
        self.spread_after(server).await;
        let number = task.key.number;
        Ok(Report { verb: "confirm-clearing", body: json!({"number": number}) })
    }

    /// Takes everything of a server from the host, with what else is to go with its files.
    pub(super) async fn forget<F: Future<Output = Result<(), DriverFault>>>(
        &self,
        server: Uuid,
        files_too: impl FnOnce(Uuid) -> F,
    ) -> Result<(), DriverFault> {
        let wire = self.wire.get().await?;
        if let Some(domain) = find(&wire, server).await? {
            self.step(Step::Stop, server, power_off(&wire, &domain)).await?;
            self.step(Step::Undefine, server, undefine(&wire, &domain)).await?;
        }
        let clear = async {
            self.end_taking_in(server).await?;
            files_too(server).await?;
            seed::remove(&self.layout.seed(server)).await?;
            self.take_discs(server, None).await?;
            files::remove(&self.layout.serial(server)).await?;
            Ok(())
        };
        self.step(Step::Clear, server, clear).await?;
        self.deactivate(server).await?;
        self.release_devices(server, &BTreeSet::new()).await?;
        self.step(Step::Unplug, server, self.plugs.unplug(&self.records, server)).await
    }
}

/// Why a server was not handed over.
pub(super) fn why(server: Uuid, fault: Option<Fault>) -> String {
    match fault {
        Some(Fault::Late(patience)) => {
            format!("it was not through within {} seconds", patience.as_secs())
        }
        Some(fault) => {
            tracing::warn!(%fault, %server, "a server was not handed over");
            chain(&fault)
        }
        None => "it was handed over, and runs here".to_owned(),
    }
}

/// What a guest calls those of its disks that are on this host alone.
fn copied(host: &Inner, work: &Work<'_>, xml: &str) -> Result<Vec<String>, DriverFault> {
    let local = work.home.local_disks();
    let is = Description::read(xml).map_err(|no| DriverFault::Unexpected(no.to_string()))?;
    let is_local = |disk: &DiskDevice| {
        let id = disk.source.as_ref().and_then(|source| host.disk_of(source));
        id.is_some_and(|id| local.contains(&id))
    };
    Ok(is.disks.into_iter().filter(is_local).map(|disk| disk.target).collect())
}

/// The XML of a machine without what lies behind its disks' files: on the other host nothing does.
fn without_chains(xml: &str) -> String {
    let (mut out, mut left) = (String::with_capacity(xml.len()), xml);
    while let Some(end) = left.find("</disk>") {
        let (disk, rest) = left.split_at(end);
        match disk.find("<backingStore") {
            None => out.push_str(disk),
            Some(from) => {
                const END: &str = "</backingStore>";
                let to = disk.rfind(END).map(|at| at + END.len());
                let to = to.or_else(|| disk[from..].find("/>").map(|at| from + at + 2));
                out.push_str(disk[..from].trim_end());
                out.push_str(&disk[to.unwrap_or(from)..]);
            }
        }
        let (tag, rest) = rest.split_at("</disk>".len());
        out.push_str(tag);
        left = rest;
    }
    out + left
}

/// The XML of a machine that is bound to other CPUs and cells.
fn rebound(xml: &str, bindings: &str) -> String {
    let mut xml = xml.to_owned();
    for section in ["cputune", "numatune"] {
        let end = format!("</{section}>");
        if let (Some(from), Some(to)) = (xml.find(&format!("<{section}>")), xml.find(&end)) {
            xml.replace_range(from..to + end.len(), "");
        }
    }
    if let Some(at) = xml.find("<os") {
        xml.insert_str(at, bindings);
    }
    xml
}

/// The XML with a file that lies elsewhere, or all files of a folder when that ends with `/`.
fn elsewhere(xml: &str, here: &str, there: &str) -> String {
    let quoted = |path: &str| {
        let end = if path.ends_with('/') { "" } else { "'" };
        let path = path.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        format!("'{}{end}", path.replace('\'', "&apos;").replace('"', "&quot;"))
    };
    xml.replace(&quoted(here), &quoted(there))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_lies_behind_a_disk_that_was_copied() {
        let xml = "<devices><disk type='file'><source file='/a'/>\n  <backingStore type='file'>\
                   <source file='/b'/><backingStore/></backingStore>\n  <target dev='vda'/></disk>\
                   <disk><backingStore/><target dev='vdb'/></disk><disk/><disk><x/></disk></devices>";
        let wanted = "<devices><disk type='file'><source file='/a'/>\n  <target dev='vda'/></disk>\
                      <disk><target dev='vdb'/></disk><disk/><disk><x/></disk></devices>";
        assert_eq!(without_chains(xml), wanted);
    }

    #[test]
    fn a_machine_is_bound_to_what_it_has_there() {
        let xml = "<vcpu>2</vcpu><cputune><vcpupin vcpu='0' cpuset='1'/></cputune>\
                   <numatune><memory mode='strict' nodeset='0'/></numatune><os><type/></os>";
        let there = "<cputune><vcpupin vcpu='0' cpuset='7'/></cputune>";
        let wanted =
            "<vcpu>2</vcpu><cputune><vcpupin vcpu='0' cpuset='7'/></cputune><os><type/></os>";
        assert_eq!(rebound(xml, there), wanted);
        assert_eq!(rebound("<vcpu>2</vcpu><os><type/></os>", ""), "<vcpu>2</vcpu><os><type/></os>");
    }

    #[test]
    fn a_file_lies_elsewhere_and_nothing_else_is_changed() {
        let xml = "<source file='/a/disks/1.raw' index='1'/><source file='/a/disks/11.raw'/>";
        let there = elsewhere(xml, "/a/disks/1.raw", "/b & c/1.raw");
        let wanted = "<source file='/b &amp; c/1.raw' index='1'/><source file='/a/disks/11.raw'/>";
        assert_eq!(there, wanted);
        assert_eq!(elsewhere(xml, "/a/disks/111.raw", "/b"), xml);
        let wanted = "<source file='/c/1.raw' index='1'/><source file='/c/11.raw'/>";
        assert_eq!(elsewhere(xml, "/a/disks/", "/c/"), wanted);
    }
}
