//! Where a server of ours goes that leaves its host, and whether anything of it is in the way.
//!
//! Hosts are the estate's: who moves servers between them reaches it.

use domain::{
    compute::{
        disk::Disk,
        host::Host,
        placement::HostId,
        server::{Server, elsewhere::LIVE, home::Home, parts},
    },
    kernel::{Decider, Refusal, Role, codes},
};
use serde_json::{Value, json};

use super::{GatherFault, Gathering};
use crate::{
    fleet::{PlaceFault, Reached},
    ledger::{Ledger, LoadFault},
    plan::{Looked, Saw},
};

/// Puts the place on another host into a `migrate`.
pub(super) async fn migrate(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    let server = server(gathering).await?;
    // What is in the way is the decider's to say.
    let (Ok(live), Some(home)) = (server.movable(), &server.home) else { return Ok(()) };
    disks(gathering, home, live, true).await?;
    let live = if live { How::Live } else { How::Stopped };
    place(gathering, home, live).await
}

/// Puts the place on another host into an `evacuate`; its own must not be heard.
pub(super) async fn evacuate(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    let server = server(gathering).await?;
    let (Ok(_), Some(home)) = (server.evacuable(), &server.home) else { return Ok(()) };
    if gathering.body["host_is_down"] != Value::Bool(true) {
        return Ok(());
    }
    let id = home.placement.host.to_string();
    let (revision, host) = gathering.ledger.typed::<Host>(&id).await?;
    note::<Host>(gathering, id, revision);
    if host.unreachable_since.is_none() && !host.fenced {
        let detail = format!("{} is heard: let its servers go elsewhere by `migrate`", host.name);
        return Err(Refusal::new(&codes::WRONG_STATE, detail).into());
    }
    // It may be where it was to go to, or is begun there, unless another host is named.
    let to = &gathering.body["to"];
    if server.evacuated_to().is_some_and(|host| to.is_null() || *to == json!(host)) {
        return Ok(());
    }
    if server.is_launching() {
        return place(gathering, home, How::Anew).await;
    }
    // What is ordered of its disks waits for the new host then.
    disks(gathering, home, false, false).await?;
    place(gathering, home, How::Stopped).await
}

/// How a server comes to another host.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// It runs meanwhile.
    Live,
    /// It does not.
    Stopped,
    /// It is made there.
    Anew,
}

async fn server(gathering: &mut Gathering<'_>) -> Result<Server, GatherFault> {
    gathering.principal.authorise(Role::Operator, None)?;
    if !matches!(gathering.body["placement"], Value::Null) {
        let detail = "placement: is found, not given; name a host in `to`";
        return Err(Refusal::new(&codes::INVALID_FIELD, detail).into());
    }
    Ok(gathering.ledger.typed::<Server>(&gathering.id.to_string()).await?.1)
}

impl Ledger {
    /// What keeps a disk on its host, while its server runs or not.
    pub(crate) async fn disk_tie(
        &self,
        disk: &parts::Disk,
        state: &Disk,
        live: bool,
    ) -> Result<Option<String>, LoadFault> {
        let snapshots = state.home.as_ref().map_or(0, |home| home.snapshots.len());
        if let Some(storage) = disk.storage {
            if disk.leased && live && snapshots > 0 {
                let why = format!(
                    "its disk {} is a volume with {snapshots} snapshots, which two hosts do not have \
                     at once: stop the server or delete them first",
                    disk.id
                );
                return Ok(Some(why));
            }
            if !disk.leased
                && let Reached::Group(_) = self.reached(storage).await?
            {
                let why = format!("its disk {} is in a volume group of this host alone", disk.id);
                return Ok(Some(why));
            }
            return Ok(None);
        }
        Ok((snapshots > 0).then(|| {
            format!(
                "its disk {} has {snapshots} snapshots, which are not copied: delete them first",
                disk.id
            )
        }))
    }
}

/// Nothing is being done to its disks, which go with it, and nothing keeps them on its host.
async fn disks(
    gathering: &mut Gathering<'_>,
    home: &Home,
    live: bool,
    must_rest: bool,
) -> Result<(), GatherFault> {
    for disk in &home.parts.disks {
        let id = disk.id.to_string();
        let (revision, state) = gathering.ledger.typed::<Disk>(&id).await?;
        note::<Disk>(gathering, id, revision);
        if let Some(detail) = gathering.ledger.disk_tie(disk, &state, live).await? {
            return Err(Refusal::new(&codes::NOT_MOVABLE, detail).into());
        }
        if let Some(out) = state.order().filter(|_| must_rest) {
            let detail = format!("order {} of its disk {} is still out", out.number, disk.id);
            return Err(Refusal::new(&codes::ORDER_OUTSTANDING, detail).into());
        }
        // What is read, or written, by this host is not handed over meanwhile.
        if must_rest && let Err(no) = state.ensure_unused() {
            let detail = format!("its disk {}: {}", disk.id, no.detail);
            return Err(Refusal::new(no.code, detail).into());
        }
    }
    Ok(())
}

async fn place(gathering: &mut Gathering<'_>, home: &Home, how: How) -> Result<(), GatherFault> {
    // What does not read is refused by the decider, with what is wrong.
    let Ok(to) = serde_json::from_value::<Option<HostId>>(gathering.body["to"].clone()) else {
        return Ok(());
    };
    if let Some(to) = to {
        let (revision, host) = gathering.ledger.typed::<Host>(&to.to_string()).await?;
        if revision == 0 || host.retired {
            let detail = format!("to: there is no host {to}");
            return Err(Refusal::new(&codes::INVALID_FIELD, detail).into());
        }
        if to == home.placement.host {
            let detail = format!("to: it is on {} already", host.name);
            return Err(Refusal::new(&codes::INVALID_FIELD, detail).into());
        }
        note::<Host>(gathering, to.to_string(), revision);
    }
    let mut request = home.elsewhere(to, how == How::Live);
    if how == How::Anew {
        // Nothing is sent there.
        request.labels.remove(LIVE);
    }
    let placed = gathering.ledger.place(&request).await;
    let placement = placed.map_err(|fault| match fault {
        PlaceFault::Refused(refusal) => GatherFault::Refused(refusal),
        PlaceFault::Load(fault) => GatherFault::Load(fault),
    })?;
    gathering.body["placement"] = json!(placement);
    Ok(())
}

fn note<T: Decider>(gathering: &mut Gathering<'_>, id: String, revision: u64) {
    let saw = Saw { kind: T::KIND.to_owned(), id, mark: revision.to_string() };
    Looked { saw, revision }.note(&mut gathering.looked);
}
