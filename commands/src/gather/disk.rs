//! The server that a disk of ours is made for or attached to: it must be within the caller's reach, and a
//! new disk lies on its host.

use domain::{
    compute::{
        disk,
        host::Host,
        placement::HostId,
        server::Server,
        storage::{Format, StorageId, in_group},
    },
    kernel::{Decider, Refusal, Role, codes},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    GatherFault, Gathering,
    backup::{self, Read},
    launch::note,
    volume,
};
use crate::fleet::Reached;

fn no(detail: String) -> GatherFault {
    Refusal::new(&codes::INVALID_FIELD, detail).into()
}

/// The server that the command names, if it is one of ours and there for this caller.
async fn server(gathering: &mut Gathering<'_>) -> Result<Option<Server>, GatherFault> {
    // What does not read is refused by the decider, with what is wrong.
    let Some(id) = gathering.body["server"].as_str().and_then(|id| id.parse::<Uuid>().ok()) else {
        return Ok(None);
    };
    let (revision, server) = gathering.ledger.typed::<Server>(&id.to_string()).await?;
    let reached = gathering.principal.authorise(Role::Operator, server.facets().project);
    if revision == 0 {
        // Who does not reach everything is not told what there is.
        gathering.principal.authorise(Role::Operator, None)?;
        return Err(no(format!("server: there is no server {id}")));
    }
    reached?;
    // Whose it is counts: a server that is another project's by then is looked at again.
    note(gathering, Server::KIND, id, revision);
    if server.home.is_none() {
        return Err(no(format!("server: {id} is not on a host of ours")));
    }
    Ok(Some(server))
}

/// Attaching needs a server that the caller reaches as well.
pub(super) async fn attach(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    server(gathering).await.map(drop)
}

/// Whether a host says that it reaches a storage.
async fn reaches(
    gathering: &mut Gathering<'_>,
    host: HostId,
    storage: StorageId,
) -> Result<bool, GatherFault> {
    let (revision, state) = gathering.ledger.typed::<Host>(&host.to_string()).await?;
    note(gathering, Host::KIND, host.uuid(), revision);
    Ok(state.seen.is_some_and(|seen| seen.storages.contains(&storage)))
}

/// A new disk's place and owner are its server's.
pub(super) async fn create(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    if !matches!(gathering.body["found"], Value::Null) {
        return Err(no("found: is the server's to fill in".to_owned()));
    }
    let Some(server) = server(gathering).await? else { return Ok(()) };
    let Some(home) = &server.home else { return Ok(()) };
    let (project, host) = (server.observation.project, home.placement.host);
    let source = match serde_json::from_value(gathering.body["from"].clone()) {
        Ok(Some(from)) => {
            let base = backup::source(gathering, "from", from, project).await?;
            let readable = match base.read {
                Read::Anywhere => true,
                Read::At(at) => at == host,
                Read::On(storage) => reaches(gathering, host, storage).await?,
            };
            if !readable {
                let detail = "from.snapshot: its disk is where the server's host does not reach it";
                return Err(no(detail.to_owned()));
            }
            backup::size(&mut gathering.body["size_gib"], base.size_gib)?;
            Some(base.source)
        }
        // What does not read is refused by the decider, with what is wrong.
        Ok(None) | Err(_) => None,
    };
    let mut leased = false;
    if let Ok(Some(storage)) =
        serde_json::from_value::<Option<StorageId>>(gathering.body["storage"].clone())
    {
        if !reaches(gathering, home.placement.host, storage).await? {
            return Err(no(format!("storage: its server's host does not reach {storage}")));
        }
        if let Reached::Group(group) = gathering.ledger.reached(storage).await? {
            // What does not read is refused by the decider, as above; left out it is qcow2.
            let format = gathering
                .body
                .get("format")
                .map_or(Ok(Format::Qcow2), |format| serde_json::from_value(format.clone()));
            if let Ok(format) = format {
                in_group(storage, format, &group)?;
            }
            leased = group.is_shared();
            let asked = gathering.body["size_gib"].as_u64().unwrap_or_default();
            volume::room(gathering, storage, group.room.as_ref(), asked << 10, None).await?;
        }
    }
    let place = disk::Place { id: gathering.id, project, host, leased, source, in_place: None };
    gathering.body["found"] = json!(place);
    Ok(())
}
