//! Whether a volume group has room for more volumes.
//!
//! What counts is what is promised: all disks of ours that lie in the group, made by now or not, and what
//! others have of it, as its hosts said last. Of two orders in the same moment that are for servers on
//! different hosts neither may see the other; then LVM refuses the second, and its order is parked.

use std::time::Duration;

use domain::{
    compute::{
        disk::Disk,
        server::home::PROVIDER,
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

/// Looks whether so many GiB more can be promised.
///
/// # Errors
/// `no-room`, with what is free.
pub(super) async fn room(
    gathering: &Gathering<'_>,
    storage: StorageId,
    room: Option<&GroupRoom>,
    more_gib: u64,
    but: Option<Uuid>,
) -> Result<(), GatherFault> {
    let Some(room) = room else { return Ok(()) };
    let free_mib = free_mib(gathering, storage, room, but).await?;
    if more_gib << 10 <= free_mib {
        return Ok(());
    }
    let detail = format!(
        "volume group {} ({storage}) has {} GiB that are promised to nobody, and {more_gib} are asked for",
        room.name,
        free_mib >> 10
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
    let promised = promised(gathering, storage, but).await;
    let promised_gib = promised.map_err(|fault| LoadFault::Missing(chain(&fault)))?;
    Ok(room.free_mib(promised_gib << 10))
}

/// Looks whether a disk that lies in a volume group can become as large as is asked for.
pub(super) async fn grow(gathering: &Gathering<'_>) -> Result<(), GatherFault> {
    // What does not read is refused by the decider, with what is wrong; so is what only shrinks.
    let Some(size_gib) = gathering.body["size_gib"].as_u64() else { return Ok(()) };
    let disk = gathering.ledger.typed::<Disk>(&gathering.id.to_string()).await?.1;
    let Some(home) = disk.home.filter(|home| size_gib > home.size_gib) else { return Ok(()) };
    let Some(storage) = home.storage else { return Ok(()) };
    let Reached::Group(group) = gathering.ledger.reached(storage).await? else { return Ok(()) };
    room(gathering, storage, group.room.as_ref(), size_gib, Some(gathering.id)).await
}

/// What disks have there or are to have, in GiB, but for one of them.
async fn promised(
    gathering: &Gathering<'_>,
    storage: StorageId,
    but: Option<Uuid>,
) -> Result<u64, ViewFault> {
    let ports = &gathering.ledger.ports;
    let head = ports.log.head().await.map_err(ViewFault::Store)?.position;
    ports.views.reach_position(head, PATIENCE).await?;
    let query =
        Query::all().with("kind", Disk::KIND).with("provider", PROVIDER).with("gone", false);
    let (rows, _) = gathering.ledger.rows(query).await?;
    let (storage, but) = (storage.to_string(), but.map(|id| id.to_string()));
    let there = rows.iter().filter(|row| {
        row.body["state"]["home"]["storage"] == storage && but.as_deref() != row.body["id"].as_str()
    });
    Ok(there.filter_map(|row| row.body["state"]["home"]["size_gib"].as_u64()).sum())
}
