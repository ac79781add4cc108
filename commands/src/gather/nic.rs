//! Interfaces of servers of our own that are there: the network of one that is added, and the rules of the
//! security groups that guard one. What they may name is what a launch may.

use std::time::Duration;

use domain::{
    compute::server::{
        Server,
        nic::{Change, Found},
        parts::{GroupRules, NicAsk},
    },
    kernel::{Decider, Refusal, codes},
    mapping::{Mapped, Stage},
    network::security_group::SecurityGroup,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    GatherFault, Gathering,
    launch::{joined, note, rules},
};
use crate::{
    follow::{self, named_by},
    ledger::{Ledger, LoadFault},
    ports::{LogFault, Row, ViewFault},
};

/// How long a retirement waits for the inventory to have seen everything.
const PATIENCE: Duration = Duration::from_secs(5);

fn no(detail: impl Into<String>) -> GatherFault {
    Refusal::new(&codes::INVALID_FIELD, detail).into()
}

pub(super) async fn server(gathering: &Gathering<'_>) -> Result<Server, GatherFault> {
    Ok(gathering.ledger.typed::<Server>(&gathering.id.to_string()).await?.1)
}

/// Puts the interface into the command, with the addresses that its network would give it now.
pub(super) async fn add(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    if !matches!(gathering.body["found"], Value::Null) {
        return Err(no("found: is found, not given; name the network"));
    }
    // What does not read is refused by the decider, with what is wrong.
    let Ok(ask) = serde_json::from_value::<NicAsk>(gathering.body["nic"].clone()) else {
        return Ok(());
    };
    let server = server(gathering).await?;
    // What is in the way is the decider's to say.
    if server.check_nics("add-nic").is_err() {
        return Ok(());
    }
    let project = server.observation.project;
    let joined = joined(gathering, "nic.", ask.network, project).await?;
    let groups = rules(gathering, "nic.", &ask.security_groups, project).await?;
    let now = gathering.ledger.ports.clock.now();
    let named = |no: Refusal| Refusal { detail: format!("nic: {}", no.detail), ..no };
    let id = server.next_nic(gathering.id);
    let nic = ask.work_out(id, &joined, now).map_err(named)?;
    gathering.body["found"] = json!(Found { nic, groups });
    Ok(())
}

/// Puts the rules of the security groups that are to guard an interface into the command.
pub(super) async fn change(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    if !matches!(gathering.body["groups"], Value::Null) {
        return Err(no("groups: are found, not given; name security_groups"));
    }
    let Ok(change) = serde_json::from_value::<Change>(gathering.body.clone()) else {
        return Ok(());
    };
    let server = server(gathering).await?;
    let Ok(nic) = server.check_nic("change-nic", change.nic) else { return Ok(()) };
    let Some(groups) = change.security_groups.filter(|groups| *groups != nic.security_groups)
    else {
        return Ok(());
    };
    let project = server.observation.project;
    let groups: GroupRules = rules(gathering, "", &groups, project).await?;
    gathering.body["groups"] = json!(groups);
    Ok(())
}

/// Puts the rules that its security groups have now into the command. Those of a group that is given up stay.
pub(super) async fn follow(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    let server = server(gathering).await?;
    let mut groups = GroupRules::new();
    for id in server.home.iter().flat_map(|home| home.parts.groups.keys()) {
        let (revision, group) =
            gathering.ledger.typed::<Mapped<SecurityGroup>>(&id.to_string()).await?;
        note(gathering, "security-group", *id, revision);
        groups
            .extend(group.wanted.filter(|_| group.stage == Stage::Own).map(|one| (*id, one.rules)));
    }
    gathering.body = json!({"groups": groups});
    Ok(())
}

/// A group that guards servers of our own stays. What the inventory has not seen yet may slip through; such a
/// server keeps the rules that it recorded.
pub(super) async fn unused(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    let Gathering { ledger, id, .. } = gathering;
    let (_, group) = ledger.typed::<Mapped<SecurityGroup>>(&id.to_string()).await?;
    if group.stage != Stage::Own {
        return super::mapping::nowhere(gathering).await;
    }
    let head = ledger.ports.log.head().await.map_err(LoadFault::from)?.position;
    let users = users(ledger, *id, head).await.map_err(|fault| match fault {
        ViewFault::Store(fault) => LoadFault::Log(fault),
        other => LoadFault::Log(LogFault::Unexpected(other.to_string())),
    })?;
    if let Some(first) = users.first() {
        let detail = format!("{} servers are guarded by it, for instance {first}", users.len());
        return Err(Refusal::new(&codes::IN_USE, detail).into());
    }
    Ok(())
}

async fn users(ledger: &Ledger, group: Uuid, head: u64) -> Result<Vec<String>, ViewFault> {
    // One that is late shows what it has.
    let _ = ledger.ports.views.reach_position(head, PATIENCE).await;
    let rows = follow::rows(ledger, Server::KIND).await?;
    let guarded = |row: &Row| named_by(&row.body).contains_key(&group);
    Ok(rows.into_iter().filter(guarded).map(|row| row.key).collect())
}
