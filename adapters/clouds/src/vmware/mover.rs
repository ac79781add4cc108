//! Orders of a move: a machine's disks are copied while it runs, it is stopped when nearly all of it is there, and
//! is as it was where that is wanted.
//!
//! ```text
//! a pass     remove our snapshot ─► snapshot ─► what has changed since the last one ─► read it, write it ─► mark
//! copy       passes, the first of everything, until one finds little
//! stop       system off ─► a last pass ─► marked complete ─► no snapshot
//! release    no snapshot ─► runs, where that is wanted ─► no mark
//! ```
//!
//! While a machine has a snapshot it writes another file, and the disk's own stands still and can be read. A snapshot
//! says a moment of each disk, and from one moment to the next the vCenter tells what has changed (changed block
//! tracking). The last pass is of a machine that is off: so what is there then is what its system has left, and
//! nobody has to have it stand still before.
//!
//! The mark on the machine says up to which moments the disks of the host are filled, and which disks these are: whoever
//! goes on after a crash begins there, or from the beginning where others lie there by now.

use std::collections::BTreeSet;

use commands::{
    ports::{Call, DriverFault, Report, Task},
    progress,
};
use domain::compute::{
    move_in::{Landing, Order},
    server::Power,
};
use serde_json::json;

use super::{
    copy::{Area, Landed},
    inventory::{Disk, MARK, Stores, Vm},
    machine::in_the_way,
    mark::{Changes, Mark},
    server::{cut_off, shut_down, start},
    session::Session,
    xml::{element, reference},
};

/// What is little: so much is copied in a few seconds while the machine is off.
const LITTLE: u64 = 256 << 20;
/// Most passes of one copy: a machine that writes faster than it is copied is never done.
const PASSES_MAX: usize = 8;
/// Most snapshots that are removed in one go: a machine has at most 32.
const SNAPSHOTS_MAX: usize = 33;

/// What a move's snapshot is called.
pub(super) fn snapshot_name(move_in: &str) -> String {
    format!("skyledger {move_in}")
}

/// The calls of an order.
pub(super) fn calls(task: &Task) -> Vec<Call> {
    let id = &task.origin.external_id;
    let one = |call: &str, effect: String| Call { call: call.to_owned(), effect };
    match task.order["type"].as_str() {
        Some("copy") => vec![
            one("CreateSnapshot_Task", format!("makes snapshots of {id}, and removes them")),
            one("QueryChangedDiskAreas", format!("copies the disks of {id}")),
        ],
        Some("stop") => vec![
            one("ShutdownGuest", format!("stops {id}")),
            one("QueryChangedDiskAreas", format!("copies the last of {id}")),
        ],
        Some("release") => vec![one("ReconfigVM_Task", format!("lets {id} be as it was"))],
        _ => Vec::new(),
    }
}

/// Carries out one order.
pub(super) async fn carry_out(session: &Session<'_>, task: &Task) -> Result<Report, DriverFault> {
    let order: Order = serde_json::from_value(task.order.clone())
        .map_err(|error| DriverFault::Unexpected(format!("the order does not read: {error}")))?;
    let id = task.origin.external_id.as_str();
    let work = Work { session, id, move_in: &task.key.stream.id };
    let verb = match order {
        Order::Copy { landing } => {
            work.copy(&landing).await?;
            "confirm-copied"
        }
        Order::Stop { shut_down, disks, landing } => {
            let landing = landing.ok_or_else(|| no("nobody says where the last of it goes"))?;
            work.stop(shut_down, &disks.into_iter().collect(), &landing).await?;
            "confirm-stopped"
        }
        Order::Release { start } => {
            work.release(start).await?;
            "confirm-released"
        }
        Order::Close {} | Order::Prepare {} => {
            return Err(DriverFault::Unexpected("an order of the host that it goes to".into()));
        }
    };
    Ok(Report { verb, body: json!({"number": task.key.number}) })
}

/// A machine, and the move that has it.
struct Work<'a> {
    session: &'a Session<'a>,
    id: &'a str,
    move_in: &'a str,
}

/// What is written on a machine.
enum Marked {
    Nothing,
    Ours(Mark),
    Others,
}

fn no(why: impl Into<String>) -> DriverFault {
    DriverFault::Rejected(why.into())
}

impl Work<'_> {
    fn this(&self) -> (&str, &str) {
        ("VirtualMachine", self.id)
    }

    fn marked(&self, vm: &Vm) -> Marked {
        match vm.mark.as_deref() {
            None => Marked::Nothing,
            Some(text) => match Mark::read(text).filter(|mark| mark.move_in == self.move_in) {
                Some(mark) => Marked::Ours(mark),
                None => Marked::Others,
            },
        }
    }

    /// Writes on the machine, and has it note changes or not.
    async fn configure(&self, mark: Option<&Mark>, track: Option<bool>) -> Result<(), DriverFault> {
        let track = track.map_or_else(String::new, |on| {
            element("changeTrackingEnabled", if on { "true" } else { "false" })
        });
        let text = mark.map_or_else(String::new, Mark::write);
        let value = format!(
            "<extraConfig>{}<value xsi:type=\"xsd:string\">{}</value></extraConfig>",
            element("key", MARK),
            super::xml::escape(&text),
        );
        // Its elements have an order.
        let words = format!("<spec>{value}{track}</spec>");
        self.session.task("ReconfigVM_Task", self.this(), &words).await.map(drop)
    }

    /// It has no snapshot of this move's.
    async fn clear(&self) -> Result<(), DriverFault> {
        let name = snapshot_name(self.move_in);
        for _ in 0..SNAPSHOTS_MAX {
            let vm = self.session.known(self.id).await?;
            let Some(own) = vm.snapshots.iter().find(|one| one.name == name) else { return Ok(()) };
            let words = "<removeChildren>false</removeChildren><consolidate>true</consolidate>";
            let this = ("VirtualMachineSnapshot", own.id.as_str());
            match self.session.task("RemoveSnapshot_Task", this, words).await {
                // It was removed already, and its answer was lost.
                Ok(_) | Err(DriverFault::NotFound(_)) => {}
                Err(fault) => return Err(fault),
            }
        }
        Err(DriverFault::Transient("its snapshots do not go".to_owned()))
    }

    /// A new snapshot: the disks as they are in it, and its id.
    async fn snapshot(&self) -> Result<(String, Vec<Disk>), DriverFault> {
        let words = format!(
            "{}{}<memory>false</memory><quiesce>false</quiesce>",
            element("name", &snapshot_name(self.move_in)),
            element("description", "Its disks are copied to another place. It goes by itself."),
        );
        let made = self.session.task("CreateSnapshot_Task", self.this(), &words).await?;
        let id = made.text().to_owned();
        let disks = self.session.disks_at(&id).await?;
        if let Some(disk) = disks.iter().find(|disk| disk.change.is_empty()) {
            let why = format!("disk {} does not note which parts of it change", disk.key);
            return Err(no(why));
        }
        Ok((id, disks))
    }

    /// What of a disk has changed from a moment to a snapshot.
    async fn changed(
        &self,
        snapshot: &str,
        disk: &Disk,
        since: &str,
    ) -> Result<Vec<Area>, DriverFault> {
        let (mut areas, mut at) = (Vec::new(), 0);
        while at < disk.bytes {
            let words = format!(
                "{}{}{}{}",
                reference("snapshot", "VirtualMachineSnapshot", snapshot),
                element("deviceKey", &disk.key.to_string()),
                element("startOffset", &at.to_string()),
                element("changeId", since),
            );
            let answer = self.session.call("QueryChangedDiskAreas", self.this(), &words).await?;
            let odd = || DriverFault::Unexpected("what has changed does not read".to_owned());
            let told = answer.at("returnval").ok_or_else(odd)?;
            for area in told.all("changedArea") {
                let begin: u64 = area.number("start").ok_or_else(odd)?;
                let length: u64 = area.number("length").ok_or_else(odd)?;
                let end = begin.checked_add(length).filter(|end| *end <= disk.bytes);
                end.ok_or_else(odd)?;
                if length > 0 {
                    areas.push((begin, length));
                }
            }
            let length: u64 = told.number("length").ok_or_else(odd)?;
            let begin: u64 = told.number("startOffset").ok_or_else(odd)?;
            let next = begin.checked_add(length).filter(|next| *next > at);
            at = next.ok_or_else(odd)?;
        }
        Ok(areas)
    }

    /// Brings the disks of the host to what the machine's are now; how much of that was new, or none when it was
    /// everything.
    async fn pass(
        &self,
        mark: &mut Mark,
        landing: &Landing,
        landed: &mut Landed,
        stores: &Stores,
    ) -> Result<Option<u64>, DriverFault> {
        self.clear().await?;
        let (snapshot, disks) = self.snapshot().await?;
        let here: BTreeSet<u32> = landing.disks.iter().map(|disk| disk.index).collect();
        if here != disks.iter().map(|disk| disk.key).collect() {
            return Err(no("it has other disks now than when the move was begun: go back"));
        }
        let mut known = mark.filled(landing.filling).cloned();
        let mut areas = Vec::new();
        for disk in &disks {
            let since = known.as_ref().and_then(|known| known.get(&disk.key));
            let Some(since) = since else {
                known = None;
                break;
            };
            match self.changed(&snapshot, disk, since).await {
                Ok(changed) => areas.push(changed),
                // It does not know that moment any more: after a power cut of its host, for instance.
                Err(DriverFault::Rejected(why)) => {
                    tracing::info!(machine = self.id, why, "all of it is copied again");
                    known = None;
                    break;
                }
                Err(fault) => return Err(fault),
            }
        }
        if known.is_none() {
            areas = disks.iter().map(|disk| vec![(0, disk.bytes)]).collect();
        }
        // Each pass begins anew: what is still to come shrinks from one to the next.
        progress::at(0, areas.iter().flatten().map(|(_, length)| length).sum());
        let mut written = 0;
        for (disk, areas) in disks.iter().zip(areas) {
            written += landed.fill(self.session, disk, stores, areas).await?;
        }
        landed.flush().await?;
        let change = |disk: &Disk| (disk.key, disk.change.clone());
        (mark.filling, mark.changes) =
            (landing.filling, disks.iter().map(change).collect::<Changes>());
        self.configure(Some(mark), None).await?;
        Ok(known.map(|_| written))
    }

    /// Nearly all of it is there.
    async fn copy(&self, landing: &Landing) -> Result<(), DriverFault> {
        let vm = self.session.known(self.id).await?;
        let mut mark = match self.marked(&vm) {
            Marked::Ours(mark) if mark.is_complete => {
                return Err(no("it was stopped for this move already"));
            }
            Marked::Ours(mark) => mark,
            Marked::Nothing => Mark {
                move_in: self.move_in.to_owned(),
                was_tracking: vm.is_tracking,
                ..Mark::default()
            },
            Marked::Others => return Err(no("another move has it")),
        };
        if vm.power() != Power::Running {
            let status = &vm.power_state;
            return Err(no(format!("it is {status} there: start it, or go back")));
        }
        if landing.filling.is_none() {
            return Err(no(
                "the agent of the host that it goes to is too old: let it be this release",
            ));
        }
        let stores = self.session.stores().await?;
        let own = snapshot_name(self.move_in);
        if let Some(why) = in_the_way(&vm, &stores, Some(&own)).first() {
            return Err(no(why.clone()));
        }
        // It is not touched before it is known that its data can come.
        let mut landed = Landed::open(landing).await?;
        if vm.mark.is_none() || !vm.is_tracking {
            // Changes are noted from the next snapshot on, which is to be the first.
            self.clear().await?;
            self.configure(Some(&mark), Some(true)).await?;
        }
        for _ in 0..PASSES_MAX {
            let new = self.pass(&mut mark, landing, &mut landed, &stores).await?;
            if new.is_some_and(|new| new <= LITTLE) {
                break;
            }
        }
        landed.close().await;
        Ok(())
    }

    /// It is off, and all of it is there.
    async fn stop(
        &self,
        ask: bool,
        disks: &BTreeSet<u32>,
        landing: &Landing,
    ) -> Result<(), DriverFault> {
        let vm = self.session.known(self.id).await?;
        let Marked::Ours(mut mark) = self.marked(&vm) else {
            return Err(no("this move does not have it there"));
        };
        if !mark.is_complete {
            let here: BTreeSet<u32> = landing.disks.iter().map(|disk| disk.index).collect();
            if mark.filled(landing.filling).is_none() || here != *disks {
                return Err(no("not all of it is here: copy again, or go back"));
            }
            let stores = self.session.stores().await?;
            // It runs on when the host is not there.
            let mut landed = Landed::open(landing).await?;
            self.off(&vm, ask).await?;
            self.pass(&mut mark, landing, &mut landed, &stores).await?;
            landed.close().await;
            self.ensure_off().await?;
            mark.is_complete = true;
            self.configure(Some(&mark), None).await?;
        }
        self.ensure_off().await?;
        self.clear().await
    }

    async fn ensure_off(&self) -> Result<(), DriverFault> {
        if self.session.known(self.id).await?.power() == Power::Stopped {
            return Ok(());
        }
        Err(no("somebody has started it there since it was stopped for the move: go back"))
    }

    /// It is off.
    async fn off(&self, vm: &Vm, ask: bool) -> Result<(), DriverFault> {
        match vm.power() {
            Power::Stopped => Ok(()),
            Power::Running if !ask => cut_off(self.session, self.id).await,
            Power::Running if !vm.has_tools => {
                let why = "VMware Tools do not run in it, by which its system is asked to stop: copy \
                           again, and cut it off (`cut_off`)";
                Err(no(why))
            }
            Power::Running => {
                if shut_down(self.session, self.id).await? {
                    return Ok(());
                }
                let why =
                    "its system does not stop: stop what keeps it, or copy again and cut it off";
                Err(no(why))
            }
            _ => Err(no(format!("it is {} there: go back", vm.power_state))),
        }
    }

    /// It is as it was.
    async fn release(&self, run: bool) -> Result<(), DriverFault> {
        let vm = self.session.known(self.id).await?;
        let ours = match self.marked(&vm) {
            Marked::Others => return Ok(()),
            Marked::Nothing => None,
            Marked::Ours(mark) => Some(mark),
        };
        self.clear().await?;
        if run {
            start(self.session, self.id).await?;
        }
        match ours {
            Some(mark) => self.configure(None, Some(mark.was_tracking)).await,
            None => Ok(()),
        }
    }
}
