//! Machines that others run come to this host: their disks are written here by where they are.
//!
//! ```text
//! prepare    blank disks, as large as the machine's ──► written by its place over NBD while it runs
//! close      nobody writes them any more, and all of it is on the disk ──► the server is launched on them
//! ```
//!
//! Who writes is QEMU's storage daemon, a process of its own which goes on when the agent has died: it has a
//! monitor, by which the same order finds it again or ends it. It listens at the address by which other hosts reach
//! this one, and the kernel lets nobody in there but the address that the machine is sent from. What is
//! sent is not encrypted: the other end has no certificate of ours.
//!
//! ```text
//! <folder>/backups/<server id>.in        its monitor: a socket
//! <folder>/backups/<server id>.in.json   where it listens
//! <folder>/backups/<server id>.in.pid    its process
//! ```

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use commands::ports::{DriverFault, HostTask, Report};
use domain::compute::{
    move_in::{self, Beginning, Landing, LandingDisk, MoveIn},
    server::{home::Home, parts::Disk},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

use super::{Inner, Step, find, kept::read, state, wanted};
use crate::{
    network::NetworkFault,
    storage::{StorageFault, files},
};

/// The ports that machines come to, one for each that is on its way.
pub const PORTS: std::ops::RangeInclusive<u16> = 21_800..=22_055;
/// How many ports are tried before it is tried again later.
const PORTS_TRIED: u16 = 16;
/// How long what writes may take to end: it writes everything out first.
const END_PATIENCE: Duration = Duration::from_mins(2);
/// Between two looks whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Where what writes is known here.
struct Files {
    socket: PathBuf,
    landing: PathBuf,
    pid: PathBuf,
    table: String,
}

impl Files {
    fn of(folder: &Path, server: Uuid) -> Self {
        let of = |end: &str| folder.join("backups").join(format!("{server}.in{end}"));
        let table = format!("skyledger-in-{}", &server.simple().to_string()[..12]);
        Self { socket: of(""), landing: of(".json"), pid: of(".pid"), table }
    }
}

/// One disk of a machine, and the one here that it is written to.
struct Pair<'a> {
    index: u32,
    bytes: u64,
    disk: &'a Disk,
}

fn pairs<'a>(beginning: &Beginning, home: &'a Home) -> Result<Vec<Pair<'a>>, DriverFault> {
    let (here, there) = (&home.parts.disks, &beginning.source.machine.disks);
    if here.len() != there.len() {
        let why = "the server has another number of disks than the machine".to_owned();
        return Err(DriverFault::Rejected(why));
    }
    let pair = |(disk, source): (&'a Disk, &move_in::machine::SourceDisk)| Pair {
        index: source.index,
        bytes: source.size_bytes,
        disk,
    };
    Ok(here.iter().zip(there).map(pair).collect())
}

fn file(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> DriverFault {
    let fault = StorageFault::file(what, path);
    move |error| fault(error).into()
}

impl Inner {
    /// An order of a machine that comes here.
    pub(super) async fn carry_out_of_move_in(
        &self,
        task: &HostTask,
    ) -> Result<Report, DriverFault> {
        let unexpected = |what: &str| DriverFault::Unexpected(what.to_owned());
        let (state, order): (MoveIn, move_in::Order) = (read(&task.subject)?, read(&task.order)?);
        let beginning = state.beginning.ok_or_else(|| unexpected("a move that has not begun"))?;
        let home = task.state.home.as_ref().ok_or_else(|| unexpected("a server of a cloud"))?;
        let (server, number) = (beginning.server, task.key.number);
        let _turn = self.turn(server).await;
        match order {
            move_in::Order::Prepare {} => {
                let landing = self.take_in(&beginning, home).await?;
                let body = json!({"number": number, "landing": landing});
                Ok(Report { verb: "confirm-prepared", body })
            }
            move_in::Order::Close {} => {
                self.step(Step::Offer, server, self.end_taking_in(server)).await?;
                for Pair { disk, .. } in pairs(&beginning, home)? {
                    let path = self.layout.disk(disk)?;
                    let written =
                        tokio::fs::File::open(&path).await.map_err(file("cannot open", &path))?;
                    written.sync_all().await.map_err(file("cannot write", &path))?;
                }
                Ok(Report { verb: "confirm-closed", body: json!({"number": number}) })
            }
            _ => Err(unexpected("an order of the place that the machine is in")),
        }
    }

    /// Blank disks that the machine's place can write; those that are being written are left as they are.
    async fn take_in(&self, beginning: &Beginning, home: &Home) -> Result<Landing, DriverFault> {
        let server = beginning.server;
        let files = Files::of(&self.options.folder, server);
        let wire = self.wire.get().await?;
        if let Some(domain) = find(&wire, server).await?
            && state(&wire, &domain).await?.is_active()
        {
            return Err(DriverFault::Rejected(format!("{} runs here already", domain.name)));
        }
        if UnixStream::connect(&files.socket).await.is_ok()
            && let Ok(said) = tokio::fs::read(&files.landing).await
            && let Ok(landing) = serde_json::from_slice(&said)
        {
            return Ok(landing);
        }
        let address = self.taken_in_at()?;
        let from = beginning.source.machine.host_address;
        let from = from.ok_or_else(|| {
            DriverFault::Rejected("nobody says from where its disks would be sent".to_owned())
        })?;
        let all = pairs(beginning, home)?;
        let make = async {
            for Pair { disk, .. } in &all {
                // What an earlier time has left is not all of it.
                self.storage.delete(disk.id).await?;
                let (format, bytes) = (wanted::format(disk.format), disk.size_gib << 30);
                self.storage.create(disk.id, format, bytes).await?;
            }
            Ok(())
        };
        self.step(Step::Disks, server, make).await?;
        let offer = self.offer_to(server, &files, &all, (address, from));
        self.step(Step::Offer, server, offer).await
    }

    /// Where other hosts reach this one.
    fn taken_in_at(&self) -> Result<IpAddr, DriverFault> {
        let reached = self.options.reached.as_ref();
        let urls = reached.map(|reached| [reached.memory.as_deref(), Some(&*reached.libvirt)]);
        let urls = urls.into_iter().flatten().flatten();
        let host = |url: &str| -> Option<IpAddr> {
            let rest = url.split_once("://")?.1;
            let host = rest.split('/').next()?;
            let host = match host.strip_prefix('[') {
                Some(rest) => rest.split(']').next()?,
                None => host.split(':').next()?,
            };
            host.parse().ok()
        };
        urls.into_iter().find_map(host).ok_or_else(|| {
            let why = "the agent was not told by which address other hosts reach this one";
            DriverFault::Rejected(why.to_owned())
        })
    }

    /// Begins what writes, at the first port that is free.
    async fn offer_to(
        &self,
        server: Uuid,
        files: &Files,
        all: &[Pair<'_>],
        (address, from): (IpAddr, IpAddr),
    ) -> Result<Landing, DriverFault> {
        self.end_taking_in(server).await?;
        let count = PORTS.end() - PORTS.start() + 1;
        let first = server
            .as_bytes()
            .iter()
            .fold(0_u16, |sum, byte| sum.wrapping_mul(31).wrapping_add(u16::from(*byte)))
            % count;
        let (mut last, filling) = (None, Uuid::now_v7());
        for at in 0..PORTS_TRIED {
            let port = PORTS.start() + (first + at) % count;
            let name =
                |pair: &Pair<'_>| LandingDisk { index: pair.index, name: pair.disk.id.to_string() };
            let disks = all.iter().map(name).collect();
            let landing = Landing { address, port, filling: Some(filling), disks };
            // Who may come is known before anybody can.
            let guard = table(&files.table, port, from);
            let place = &self.options.place;
            place.tool("nft", ["-f", "-"]).input(guard).run().await.map_err(NetworkFault::from)?;
            let written = serde_json::to_vec(&landing).unwrap_or_default();
            let write = tokio::fs::write(&files.landing, written).await;
            write.map_err(file("cannot write", &files.landing))?;
            let words = self.words(files, all, &landing)?;
            let tool = place.tool("qemu-storage-daemon", words.iter().map(String::as_str));
            match tool.run().await {
                Ok(_) => return Ok(landing),
                Err(fault) => last = Some(fault),
            }
            self.end_taking_in(server).await?;
        }
        let why = last.map(|fault| fault.to_string()).unwrap_or_default();
        Err(DriverFault::Transient(format!("what comes cannot be taken: {why}")))
    }

    /// What writes, in words: for each disk its file, what is in it, and as much of that as the machine has.
    fn words(
        &self,
        files: &Files,
        all: &[Pair<'_>],
        landing: &Landing,
    ) -> Result<Vec<String>, DriverFault> {
        let mut words = Vec::new();
        let mut say = |name: &str, value: String| words.extend([name.to_owned(), value]);
        for Pair { index, bytes, disk } in all {
            let path = self.layout.disk(disk)?.display().to_string().replace(',', ",,");
            let format = wanted::format(disk.format).name();
            say(
                "--blockdev",
                format!("driver=file,node-name=file{index},filename={path},discard=unmap"),
            );
            say(
                "--blockdev",
                format!("driver={format},node-name=disk{index},file=file{index},discard=unmap"),
            );
            say(
                "--blockdev",
                format!("driver=raw,node-name=part{index},file=disk{index},offset=0,size={bytes}"),
            );
        }
        let Landing { address, port, disks, .. } = landing;
        say("--nbd-server", format!("addr.type=inet,addr.host={address},addr.port={port}"));
        for LandingDisk { index, name } in disks {
            say(
                "--export",
                format!("type=nbd,id=export{index},node-name=part{index},name={name},writable=on"),
            );
        }
        let socket = files.socket.display().to_string().replace(',', ",,");
        say("--chardev", format!("socket,id=monitor,path={socket},server=on,wait=off"));
        say("--monitor", "chardev=monitor".to_owned());
        say("--pidfile", files.pid.display().to_string());
        words.push("--daemonize".to_owned());
        Ok(words)
    }

    /// Nobody writes the disks of a server any more, and nobody is let in.
    pub(super) async fn end_taking_in(&self, server: Uuid) -> Result<(), DriverFault> {
        let files = Files::of(&self.options.folder, server);
        if !files::exists(&files.landing).await? {
            return Ok(());
        }
        let ends = Instant::now() + END_PATIENCE;
        while let Ok(monitor) = UnixStream::connect(&files.socket).await {
            if Instant::now() >= ends {
                let why = "what takes a machine in does not end".to_owned();
                return Err(DriverFault::Transient(why));
            }
            let left = ends.saturating_duration_since(Instant::now());
            // Its own words do not matter: whether it is gone does.
            let _ = timeout(left, quit(monitor)).await;
            sleep(LOOK_AGAIN).await;
        }
        // It listens to nobody any more before it has written everything out.
        while process(&files.pid).await.is_some_and(|process| process.exists()) {
            if Instant::now() >= ends {
                let why = "what takes a machine in does not write everything out".to_owned();
                return Err(DriverFault::Transient(why));
            }
            sleep(LOOK_AGAIN).await;
        }
        let none = format!("table inet {0}\ndelete table inet {0}\n", files.table);
        let place = &self.options.place;
        place.tool("nft", ["-f", "-"]).input(none).run().await.map_err(NetworkFault::from)?;
        files::remove(&files.socket).await?;
        files::remove(&files.pid).await?;
        files::remove(&files.landing).await?;
        Ok(())
    }
}

/// Who may come to a port.
fn table(name: &str, port: u16, from: IpAddr) -> String {
    let family = if from.is_ipv4() { "ip" } else { "ip6" };
    format!(
        "table inet {name}\ndelete table inet {name}\ntable inet {name} {{\n  chain input {{\n    \
         type filter hook input priority -5; policy accept;\n    \
         tcp dport {port} {family} saddr {from} accept\n    tcp dport {port} drop\n  }}\n}}\n"
    )
}

/// The process whose number is in a file; none where there is none, or it is another's by now.
async fn process(pid: &Path) -> Option<PathBuf> {
    let number: u32 = tokio::fs::read_to_string(pid).await.ok()?.trim().parse().ok()?;
    let process = PathBuf::from(format!("/proc/{number}"));
    let words = tokio::fs::read(process.join("cmdline")).await.ok()?;
    let words = String::from_utf8_lossy(&words).into_owned();
    words.contains(&pid.display().to_string()).then_some(process)
}

/// Has it end, and hears it until it has.
async fn quit(mut monitor: UnixStream) -> std::io::Result<()> {
    monitor.write_all(b"{\"execute\":\"qmp_capabilities\"}{\"execute\":\"quit\"}").await?;
    let mut said = Vec::new();
    monitor.read_to_end(&mut said).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_comes_to_the_port_but_from_one_address() {
        let text = table("skyledger-in-0123", 21_800, "192.0.2.7".parse().unwrap());
        assert!(
            text.contains("tcp dport 21800 ip saddr 192.0.2.7 accept\n    tcp dport 21800 drop")
        );
        let text = table("skyledger-in-0123", 21_800, "2001:db8::7".parse().unwrap());
        assert!(text.contains("ip6 saddr 2001:db8::7"));
    }
}
