//! Snapshots of servers' disks, taken and removed also while a server runs.
//!
//! A disk in a folder that no server uses is left to `qemu-img`; of one that a running server has, QEMU is
//! asked, because nobody else may write into its file. A volume's snapshots are LVM's, running or not. Going
//! back is for a server that is stopped.

use adapters_libvirt::{Connection, Domain};
use commands::ports::DriverFault;
use domain::compute::storage::lease::Lease;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{KvmHost, Of, Step, fault::libvirt, find, state, wanted};
use crate::storage::{any::Storage, directory::Disk, qemu_img::Format};

/// A part of what QEMU says of a file that it has open.
#[derive(Deserialize)]
struct Node {
    #[serde(rename = "node-name")]
    name: String,
    drv: String,
    file: String,
    image: Image,
}

#[derive(Deserialize)]
struct Image {
    #[serde(default)]
    snapshots: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

pub(super) fn unexpected(what: impl ToString) -> DriverFault {
    DriverFault::Unexpected(format!("QEMU's monitor: {}", what.to_string()))
}

pub(super) async fn ask(
    wire: &Connection,
    domain: &Domain,
    command: Value,
) -> Result<Value, DriverFault> {
    let answer = wire.monitor(domain, &command.to_string()).await.map_err(libvirt)?;
    let mut answer: Value = serde_json::from_str(&answer).map_err(unexpected)?;
    match answer["error"]["desc"].as_str() {
        Some(why) => Err(DriverFault::Transient(format!("QEMU: {why}"))),
        None => Ok(answer["return"].take()),
    }
}

/// What QEMU calls a disk of a server that runs, and whether it has a snapshot.
async fn node(
    wire: &Connection,
    domain: &Domain,
    disk: &Disk,
    snapshot: Uuid,
) -> Result<(String, bool), DriverFault> {
    let query = json!({"execute": "query-named-block-nodes", "arguments": {"flat": true}});
    let nodes = ask(wire, domain, query).await?;
    let nodes: Vec<Node> = serde_json::from_value(nodes).map_err(unexpected)?;
    let path = disk.path.display().to_string();
    let node = nodes.into_iter().find(|node| node.drv == "qcow2" && node.file == path);
    let node = node.ok_or_else(|| {
        DriverFault::Rejected(format!("{} does not have {path}, or not as qcow2", domain.name))
    })?;
    let id = snapshot.to_string();
    Ok((node.name, node.image.snapshots.iter().any(|one| one.name == id)))
}

/// A disk of a server that runs: only QEMU may write into its file.
struct Running<'a> {
    wire: &'a Connection,
    domain: Domain,
    disk: Disk,
}

impl Running<'_> {
    /// Makes a snapshot be there, or not be.
    async fn make(&self, snapshot: Uuid, wanted: bool) -> Result<(), DriverFault> {
        let (node, is_there) = node(self.wire, &self.domain, &self.disk, snapshot).await?;
        if is_there == wanted {
            return Ok(());
        }
        let command = if wanted {
            "blockdev-snapshot-internal-sync"
        } else {
            "blockdev-snapshot-delete-internal-sync"
        };
        let arguments = json!({"device": node, "name": snapshot.to_string()});
        ask(self.wire, &self.domain, json!({"execute": command, "arguments": arguments})).await?;
        match self::node(self.wire, &self.domain, &self.disk, snapshot).await? {
            (_, is_there) if is_there == wanted => Ok(()),
            _ => Err(unexpected(format!("{command} did nothing"))),
        }
    }
}

impl KvmHost {
    /// The snapshots of a disk, by id, sorted.
    ///
    /// # Errors
    /// The disk is not there, or the host's.
    pub async fn snapshots(&self, of: Of) -> Result<Vec<Uuid>, DriverFault> {
        Ok(self.inner.holder(of.disk).await?.snapshots(of.disk).await?)
    }

    /// Takes a snapshot of a server's disk, running or not, unless it is there. The server stands still
    /// while it is taken.
    ///
    /// # Errors
    /// The disk is raw or not there; libvirt's, QEMU's or the host's.
    pub async fn take_snapshot(&self, of: Of, snapshot: Uuid) -> Result<(), DriverFault> {
        self.change_snapshot(of, (snapshot, None), true).await
    }

    /// Removes a snapshot of a server's disk, running or not; that there is none is the same end.
    ///
    /// # Errors
    /// As [`Self::take_snapshot`].
    pub async fn delete_snapshot(&self, of: Of, snapshot: Uuid) -> Result<(), DriverFault> {
        self.change_snapshot(of, (snapshot, None), false).await
    }

    /// One of both, by an order that came with a lease where the disk has any.
    pub(super) async fn change_snapshot(
        &self,
        of: Of,
        (snapshot, lease): (Uuid, Option<Lease>),
        wanted: bool,
    ) -> Result<(), DriverFault> {
        let _turn = self.inner.turn(of.server).await;
        let storage = self.inner.holder(of.disk).await?.on(lease);
        let disk = storage.inspect(of.disk).await?;
        let is_volume = matches!(storage, Storage::Group(_));
        if disk.format != Format::Qcow2 && !is_volume {
            let why = format!(
                "disk {} is {} in a folder, where that has no snapshots",
                of.disk, disk.format
            );
            return Err(DriverFault::Rejected(why));
        }
        let wire = self.inner.wire.get().await?;
        let step = if wanted { Step::Snapshot } else { Step::DeleteSnapshot };
        let itself = async {
            if wanted {
                storage.take_snapshot(of.disk, snapshot).await
            } else {
                storage.delete_snapshot(of.disk, snapshot).await
            }
        };
        let change = async {
            match find(&wire, of.server).await? {
                Some(domain) if state(&wire, &domain).await?.is_active() => match storage {
                    Storage::Folder(_) => {
                        Running { wire: &wire, domain, disk }.make(snapshot, wanted).await
                    }
                    Storage::Group(_) => Ok(itself.await?),
                },
                _ => self.inner.awake(&storage, of.disk, itself).await,
            }
        };
        self.inner.step(step, of.server, change).await
    }

    /// Makes a disk of a server that does not run what it was at a snapshot. It stays as large as it is.
    ///
    /// # Errors
    /// The server runs, there is no such snapshot; libvirt's or the host's.
    pub async fn roll_back(&self, of: Of, snapshot: Uuid) -> Result<(), DriverFault> {
        self.roll_back_by(of, snapshot, None).await
    }

    /// The same by an order of this number. That it was done is written down beside the server: an agent that
    /// dies afterwards does not do it once more to what was written on the disk since.
    ///
    /// # Errors
    /// As [`Self::roll_back`].
    pub async fn roll_back_by(
        &self,
        of: Of,
        snapshot: Uuid,
        by: Option<u64>,
    ) -> Result<(), DriverFault> {
        self.go_back(of, (snapshot, None), by).await
    }

    /// The same by an order that came with a lease where the disk has any.
    pub(super) async fn go_back(
        &self,
        of: Of,
        (snapshot, lease): (Uuid, Option<Lease>),
        by: Option<u64>,
    ) -> Result<(), DriverFault> {
        let _turn = self.inner.turn(of.server).await;
        let written = self.inner.records.read(of.server).await?;
        let done = written.as_ref().and_then(|record| record.rolled_back.get(&snapshot).copied());
        if by.is_some() && done == by {
            return Ok(());
        }
        let wire = self.inner.wire.get().await?;
        if let Some(domain) = find(&wire, of.server).await? {
            if state(&wire, &domain).await?.is_active() {
                let why = format!("{} runs: stop it first", wanted::name(of.server));
                return Err(DriverFault::Rejected(why));
            }
            // They say nothing of what going back changes.
            self.forget_changes(of.disk, &wire, &domain).await?;
        }
        let storage = self.inner.holder(of.disk).await?.on(lease);
        let back = async {
            let back = storage.roll_back(of.disk, snapshot);
            self.inner.awake(&storage, of.disk, back).await?;
            if let Some(number) = by {
                let mut record = written.unwrap_or_default();
                record.rolled_back.insert(snapshot, number);
                self.inner.records.write(of.server, &record).await?;
            }
            Ok(())
        };
        self.inner.step(Step::RollBack, of.server, back).await
    }

    /// Makes a disk with all that a disk of a server that does not run was at a snapshot.
    ///
    /// # Errors
    /// The server runs, there is no such snapshot, or something else has the new disk's id; the host's.
    pub async fn clone_snapshot(
        &self,
        of: Of,
        snapshot: Uuid,
        disk: Uuid,
        format: Format,
    ) -> Result<Disk, DriverFault> {
        let _turn = self.inner.turn(of.server).await;
        let storage = self.inner.holder(of.disk).await?;
        let (size_bytes, into) = (
            storage.inspect(of.disk).await?.size_bytes,
            Storage::Folder(self.inner.storage.clone()),
        );
        let copy = storage.copy_snapshot((of.disk, snapshot), &into, (disk, format, size_bytes));
        self.inner.awake(&storage, of.disk, copy).await
    }
}
