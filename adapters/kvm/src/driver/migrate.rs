//! Servers that go to another host, come from one, or are had back from one that is dead.
//!
//! What a server runs on is never guessed. It is handed over by one call, after which it is off here
//! ([`Left::Gone`]), runs here as before ([`Left::Runs`]), or is held by a daemon that died in between
//! ([`Left::Unsure`]). It is started here only when its order says that it runs nowhere else.

use std::time::Duration;

use adapters_libvirt::{Connection, Destination, Domain, State};
use commands::ports::{DriverFault, HostTask, Report};
use domain::compute::{
    host,
    server::{
        home::Home,
        migrate::{Landing, MigrationStep, Moving},
    },
};
use serde_json::json;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{
    Inner, Step, Work,
    fault::{chain, libvirt},
    find, power_off, state, undefine, wanted,
};
use crate::storage::{files, seed};

/// How long a server's memory may take to be sent.
const SEND_PATIENCE: Duration = Duration::from_hours(1);
/// Between two looks at something that tells nobody of its end.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// `VIR_DOMAIN_PAUSED_USER`: somebody holds it who does not move it.
const HELD_BY_USER: i32 = 1;
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

/// What is here of a server that was to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// It does not run here.
    Gone,
    /// It runs here as before.
    Runs,
    /// It is held, and may run there.
    Unsure,
}

fn report(number: u64, step: &MigrationStep) -> Report {
    Report { verb: "confirm-migration", body: json!({"number": number, "step": step}) }
}

fn moving(home: &Home) -> Result<&Moving, DriverFault> {
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
        let (server, number) = (work.server, work.number);
        let sent = |certain| Ok(report(number, &MigrationStep::Sent { certain }));
        // One that was begun by an agent that died goes on without it.
        match self.left(server).await? {
            Left::Gone => {
                self.deactivate(server).await?;
                return sent(true);
            }
            Left::Unsure => return sent(false),
            Left::Runs => {}
        }
        let mut reason = "it runs, and was to go while it is stopped".to_owned();
        if moving(work.home)?.live {
            let wire = self.wire.get().await?;
            let send = async {
                let Some(domain) = find(&wire, server).await? else { return Ok(None) };
                let there = self.destination(&wire, &domain, work, landing).await?;
                Ok(wire.migrate(&domain, &there, SEND_PATIENCE).await.err())
            };
            // Whatever is said of it, what is left here tells.
            if let Some(fault) = self.step(Step::Send, server, send).await? {
                tracing::warn!(%fault, %server, "a server was not handed over");
                reason = chain(&fault);
            }
            match self.left(server).await? {
                Left::Gone => {
                    self.deactivate(server).await?;
                    return sent(true);
                }
                Left::Unsure => return sent(false),
                Left::Runs => {}
            }
        }
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        let seen = self.seen(server, work.home).await?;
        Ok(report(number, &MigrationStep::Stays { reason, seen }))
    }

    /// The machine as it is to be on the other host: the same, with its files where they lie there.
    async fn destination(
        &self,
        wire: &Connection,
        domain: &Domain,
        work: &Work<'_>,
        landing: &Landing,
    ) -> Result<Destination, DriverFault> {
        let layout = self.lies().await?;
        let mut xml = wire.migratable_xml(domain).await.map_err(libvirt)?;
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
        Ok(Destination { daemon, memory: landing.memory.clone(), xml })
    }

    /// What is here of a server, once nothing goes on with it any more.
    async fn left(&self, server: Uuid) -> Result<Left, DriverFault> {
        let until = Instant::now() + SEND_PATIENCE;
        loop {
            let wire = self.wire.get().await?;
            let Some(domain) = find(&wire, server).await? else { return Ok(Left::Gone) };
            let (is, reason) = wire.state(&domain).await.map_err(libvirt)?;
            if !is.is_active() {
                return Ok(Left::Gone);
            }
            let Ok(busy) = wire.has_job(&domain).await else {
                // It ended while we looked, or the daemon did.
                sleep(LOOK_AGAIN).await;
                continue;
            };
            match is {
                _ if busy => {}
                State::Paused if reason != HELD_BY_USER => return Ok(Left::Unsure),
                _ => return Ok(Left::Runs),
            }
            if Instant::now() > until {
                let why = "libvirt still works on the server, and does not say when it ends";
                return Err(DriverFault::Transient(why.to_owned()));
            }
            sleep(LOOK_AGAIN).await;
        }
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
            self.step(Step::Define, server, self.define(&wire, &machine)).await?;
        }
        Ok(None)
    }

    /// Leaves nothing of a server that is elsewhere now. Its disks are where both hosts reach them.
    pub(super) async fn clear_server(&self, task: &HostTask) -> Result<Report, DriverFault> {
        let order: host::Order = serde_json::from_value(task.order.clone())
            .map_err(|fault| DriverFault::Unexpected(fault.to_string()))?;
        let host::Order::Clear { server, .. } = order;
        let server = server.uuid();
        let _turn = self.turn(server).await;
        self.forget(server, |_| async { Ok(()) }).await?;
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
            files_too(server).await?;
            seed::remove(&self.layout.seed(server)).await?;
            files::remove(&self.layout.serial(server)).await?;
            Ok(())
        };
        self.step(Step::Clear, server, clear).await?;
        self.deactivate(server).await?;
        self.step(Step::Unplug, server, self.plugs.unplug(&self.records, server)).await
    }
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
