//! The process that tells a host's servers their addresses.
//!
//! It is not the agent's: servers ask at their boot, and renew what they were told, also while there is no
//! agent. It works from what the agent has written down of servers, looks again when that has changed, and
//! ends when there is nobody to tell anything. The agent begins it and begins it again when it is gone; a lock
//! keeps it from being there twice.
//!
//! ```text
//! <folder>/responder.lock       held by it
//! <folder>/responder.log        what it had to say since it was begun
//! ```

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use commands::ports::DriverFault;
use tokio::time::{Instant, sleep};

use super::records::{Record, Records};
use crate::{
    network::{
        NetworkFault, Place,
        dhcp::listen::{Answers, Listeners},
    },
    storage::StorageFault,
};

/// Between two looks whether something else is written down.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// A folder's time says nothing about what is changed within one tick of its clock.
const TICK: Duration = Duration::from_secs(2);
/// How long it may take to be there, or gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks whether it is.
const WAIT: Duration = Duration::from_millis(20);

/// How the process is begun, and whether it is there.
#[derive(Clone, Debug)]
pub(super) struct Responder {
    folder: PathBuf,
    command: Vec<String>,
    place: Place,
}

impl Responder {
    pub(super) fn new(folder: &Path, command: Vec<String>, place: Place) -> Self {
        Self { folder: folder.to_owned(), command, place }
    }

    /// Whether it is there.
    pub(super) fn is_there(&self) -> bool {
        matches!(try_take(&self.folder), Ok(None))
    }

    /// It is there when somebody is told something, and gone when nobody is.
    ///
    /// # Errors
    /// It does not begin, or does not end.
    pub(super) async fn settle(&self, records: &Records) -> Result<(), DriverFault> {
        let wanted = records.all().await?.values().any(is_told);
        let ends = Instant::now() + PATIENCE;
        let mut begun = false;
        while self.is_there() != wanted {
            if wanted && !begun {
                self.begin()?;
                begun = true;
            }
            if Instant::now() >= ends {
                let log = self.log();
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                let said = said.lines().last().unwrap_or("nothing").to_owned();
                let what = if wanted { "begin" } else { "end" };
                let why = format!("what tells servers their addresses does not {what}: {said}");
                return Err(DriverFault::Transient(why));
            }
            sleep(WAIT).await;
        }
        Ok(())
    }

    /// Begins it again when it has ended and somebody is to be told something.
    pub(super) async fn keep(&self, records: &Records) -> Result<(), DriverFault> {
        if self.is_there() || !records.all().await?.values().any(is_told) {
            return Ok(());
        }
        tracing::warn!("what tells servers their addresses was gone: it is begun again");
        self.begin()
    }

    fn log(&self) -> PathBuf {
        self.folder.join("responder.log")
    }

    fn begin(&self) -> Result<(), DriverFault> {
        let Some((program, arguments)) = self.command.split_first() else {
            let why = "nothing tells servers their addresses here".to_owned();
            return Err(DriverFault::Rejected(why));
        };
        let log = self.log();
        let file = File::create(&log).map_err(StorageFault::file("cannot make", &log))?;
        let tool = self.place.tool(program, arguments.iter().map(String::as_str));
        Ok(tool.leave(file).map_err(NetworkFault::from)?)
    }
}

fn is_told(record: &Record) -> bool {
    record.ports.iter().any(|port| port.told.is_some())
}

/// The lock; none while another process holds it.
fn try_take(folder: &Path) -> Result<Option<File>, StorageFault> {
    let path = folder.join("responder.lock");
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(StorageFault::file("cannot make", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(StorageFault::file("cannot lock", &path)(error)),
    }
}

/// The lock, also when somebody just looks whether it is held.
async fn take(folder: &Path) -> Result<Option<File>, StorageFault> {
    for _ in 0..10 {
        if let Some(lock) = try_take(folder)? {
            return Ok(Some(lock));
        }
        sleep(WAIT).await;
    }
    Ok(None)
}

/// What is to be told, read again when it may have changed.
struct Wanted {
    records: Records,
    changed: Option<SystemTime>,
    answers: Answers,
}

impl Wanted {
    async fn look(&mut self) -> Result<&Answers, StorageFault> {
        let folder = self.records.servers();
        let fault = || StorageFault::file("cannot look at", folder);
        let changed = std::fs::metadata(folder).and_then(|about| about.modified());
        let changed = changed.map_err(fault())?;
        let is_old = changed.elapsed().is_ok_and(|age| age > TICK);
        if self.changed == Some(changed) && is_old {
            return Ok(&self.answers);
        }
        // Before the look: what is changed meanwhile is looked at the next time.
        self.changed = Some(changed);
        let records = self.records.all().await?;
        self.answers = Answers::new();
        for port in records.into_values().flat_map(|record| record.ports) {
            if let Some(told) = port.told {
                self.answers.entry(port.bridge).or_default().push(told);
            }
        }
        Ok(&self.answers)
    }
}

/// Tells the servers of the host with this folder their addresses, until there are none to tell. Ends at
/// once when another process does.
///
/// # Errors
/// What is written down does not read, or nothing can be heard on bridges: that needs `CAP_NET_RAW`.
pub async fn respond(folder: &Path) -> Result<(), DriverFault> {
    let Some(mut lock) = take(folder).await? else { return Ok(()) };
    let records = Records::at(folder);
    let mut wanted = Wanted { records, changed: None, answers: Answers::new() };
    let mut listeners = Listeners::default();
    loop {
        if !folder.exists() {
            return Ok(());
        }
        if wanted.look().await?.is_empty() {
            listeners = Listeners::default();
            drop(lock);
            // Whoever has written something down since has seen the lock held, and begun nothing.
            if wanted.look().await?.is_empty() {
                return Ok(());
            }
            let Some(again) = take(folder).await? else { return Ok(()) };
            lock = again;
            continue;
        }
        let told = listeners.tell(&wanted.answers);
        told.map_err(|fault| DriverFault::Transient(format!("nothing can be heard: {fault}")))?;
        if is_replaced() {
            return Ok(());
        }
        // It blocks: this process does nothing else.
        let heard = listeners.hear(LOOK_AGAIN);
        heard.map_err(|fault| DriverFault::Transient(format!("nothing is heard: {fault}")))?;
    }
}

/// Whether its program is another by now: the agent begins the new one.
fn is_replaced() -> bool {
    let program = std::fs::read_link("/proc/self/exe");
    program.is_ok_and(|program| program.as_os_str().as_encoded_bytes().ends_with(b" (deleted)"))
}
