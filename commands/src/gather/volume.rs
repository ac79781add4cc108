//! Whether a volume group has room for more volumes.
//!
//! What counts is what is promised: all disks of ours that lie in the group and their snapshots, made by now
//! or not, and what others have of it, as its hosts said last. Of two orders in the same moment that are for servers on
//! different hosts neither may see the other; then LVM refuses the second, and its order is parked.

use std::{collections::BTreeSet, time::Duration};

use domain::{
    compute::{
        disk::Disk,
        server::home::PROVIDER,
        snapshot::Snapshot,
        storage::{GroupRoom, StorageId},
    },
    kernel::{Decider, Refusal, codes},
};
use uuid::Uuid;

use super::{GatherFault, Gathering};
use crate::{
    fleet::Reached,
    ledger::LoadFault,
    observe::chain,
    ports::{Query, ViewFault},
};

/// How long the views may take to know what is promised.
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks whether so many MiB more can be promised.
///
/// # Errors
/// `no-room`, with what is free.
pub(super) async fn room(
    gathering: &Gathering<'_>,
    storage: StorageId,
    room: Option<&GroupRoom>,
    more_mib: u64,
    but: Option<Uuid>,
) -> Result<(), GatherFault> {
    let Some(room) = room else { return Ok(()) };
    let free_mib = free_mib(gathering, storage, room, but).await?;
    if more_mib <= free_mib {
        return Ok(());
    }
    // What is a little more than whole ones is said as it is.
    let (free, more, unit) = match more_mib % 1_024 {
        0 => (free_mib >> 10, more_mib >> 10, "GiB"),
        _ => (free_mib, more_mib, "MiB"),
    };
    let detail = format!(
        "volume group {} ({storage}) has {free} {unit} that are promised to nobody, and {more} are asked for",
        room.name,
    );
    Err(Refusal::new(&codes::NO_ROOM, detail).into())
}

/// What is promised to nobody.
pub(super) async fn free_mib(
    gathering: &Gathering<'_>,
    storage: StorageId,
    room: &GroupRoom,
    but: Option<Uuid>,
) -> Result<u64, LoadFault> {
    let promised = promised(gathering, storage, room, but).await;
    let promised_mib = promised.map_err(|fault| LoadFault::Missing(chain(&fault)))?;
    Ok(room.free_mib(promised_mib))
}

/// Looks whether a disk that lies in a volume group can become as large as is asked for.
pub(super) async fn grow(gathering: &Gathering<'_>) -> Result<(), GatherFault> {
    // What does not read is refused by the decider, with what is wrong; so is what only shrinks.
    let Some(size_gib) = gathering.body["size_gib"].as_u64() else { return Ok(()) };
    let disk = gathering.ledger.typed::<Disk>(&gathering.id.to_string()).await?.1;
    let Some(home) = disk.home.filter(|home| size_gib > home.size_gib) else { return Ok(()) };
    let Some(storage) = home.storage else { return Ok(()) };
    let Reached::Group(group) = gathering.ledger.reached(storage).await? else { return Ok(()) };
    room(gathering, storage, group.room.as_ref(), size_gib << 10, Some(gathering.id)).await
}

/// What disks and their snapshots have there or are to have, in MiB, but for one disk.
async fn promised(
    gathering: &Gathering<'_>,
    storage: StorageId,
    room: &GroupRoom,
    but: Option<Uuid>,
) -> Result<u64, ViewFault> {
    let ports = &gathering.ledger.ports;
    let head = ports.log.head().await.map_err(ViewFault::Store)?.position;
    ports.views.reach_position(head, PATIENCE).await?;
    let query =
        Query::all().with("kind", Disk::KIND).with("provider", PROVIDER).with("gone", false);
    let (rows, _) = gathering.ledger.rows(query).await?;
    let (storage, but) = (storage.to_string(), but.map(|id| id.to_string()));
    let there = rows.iter().filter(|row| row.body["state"]["home"]["storage"] == storage);
    let there: Vec<_> = there.collect();
    let sized = there.iter().filter(|row| but.as_deref() != row.body["id"].as_str());
    let sizes = sized.filter_map(|row| row.body["state"]["home"]["size_gib"].as_u64());
    let disks_mib: u64 = sizes.map(|gib| gib << 10).sum();
    let disks: BTreeSet<_> = there.iter().map(|row| row.key.as_str()).collect();
    let query = Query::all().with("kind", Snapshot::KIND).with("gone", false);
    let (rows, _) = gathering.ledger.rows(query).await?;
    let of = |disk: &str| disks.contains(disk);
    let kept = rows.iter().filter(|row| row.body["state"]["disk"].as_str().is_some_and(of));
    let sizes = kept.filter_map(|row| row.body["state"]["size_gib"].as_u64());
    Ok(disks_mib + sizes.map(|gib| room.snapshot_mib(gib)).sum::<u64>())
}
