//! The machine that a server is launched from, as whoever has it says now: checked for everything that is in the
//! way before anything is made.

use domain::{
    compute::{
        image::Format,
        move_in::{Ask, Source, id_of, machine::look},
        server::elsewhere::LIVE,
    },
    kernel::{Refusal, Role, codes},
};
use serde_json::{Value, json};

use super::{GatherFault, Gathering, look_at_account};
use crate::move_in::{SourceFault, no_machines};

impl From<SourceFault> for GatherFault {
    fn from(fault: SourceFault) -> Self {
        match fault {
            SourceFault::Refused(refusal) => Self::Refused(refusal),
            SourceFault::Load(fault) => Self::Load(fault),
            SourceFault::Driver(fault) => {
                let detail = format!("move_in: {fault}");
                Self::Refused(Refusal::new(&codes::ACCOUNT_NOT_READY, detail))
            }
        }
    }
}

fn no(detail: &str) -> GatherFault {
    Refusal::new(&codes::INVALID_FIELD, format!("move_in.{detail}")).into()
}

/// Puts what the machine is into the launch, and what the launch leaves out.
pub(super) async fn launch(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    // What does not read is refused by the decider, with what is wrong.
    let said = serde_json::from_value::<Option<Ask>>(gathering.body["move_in"].clone());
    let Ok(Some(ask)) = said else { return Ok(()) };
    if gathering.exists {
        return Ok(());
    }
    if ask.found.is_some() {
        return Err(no("found: is found, not given; name the machine"));
    }
    let ledger = gathering.ledger;
    let (saw, account) = look_at_account(ledger, ask.account).await?;
    let account = account
        .filter(|one| gathering.principal.authorise(Role::Operator, one.project).is_ok())
        .ok_or_else(|| no("account: there is no such account for it"))?;
    saw.note(&mut gathering.looked);
    let (provider, access, _) = ledger.source(ask.account).await?;
    let machines = provider.machines().ok_or_else(|| no_machines(provider.name()))?;
    let machine = machines.machine(&access, &ask.machine).await.map_err(SourceFault::from)?;
    let machine = machine.ok_or_else(|| {
        let detail = format!("move_in.machine: {} has no {}", account.name, ask.machine);
        Refusal::new(&codes::NOT_FOUND, detail)
    })?;
    let looked = look(machine, &ledger.own_networks().await?);
    if ask.digest.is_some_and(|digest| digest != looked.digest) {
        let detail = "move_in.digest: it was changed since it was looked at";
        return Err(Refusal::new(&codes::MACHINE_CHANGED, detail).into());
    }
    let nics = gathering.body["nics"].as_array().is_some_and(|nics| !nics.is_empty());
    let in_the_way = looked.obstacles.iter().filter(|one| !(nics && one.code == "nic"));
    let in_the_way: Vec<_> = in_the_way.map(|one| one.detail.clone()).collect();
    if !in_the_way.is_empty() {
        return Err(Refusal::new(&codes::NOT_MOVABLE_IN, in_the_way.join("; ")).into());
    }
    let machine = looked.machine;
    let body = &mut gathering.body;
    let mut fill = |name: &str, value: Value| {
        let is_missing = match &body[name] {
            Value::Null => true,
            Value::Array(items) => items.is_empty(),
            _ => false,
        };
        if is_missing {
            body[name] = value;
        }
    };
    fill("name", json!(machine.name));
    fill("firmware", json!(machine.firmware));
    fill("nics", json!(looked.nics));
    fill("hardware", json!(machine.hardware.unwrap_or_default()));
    let disk = |bytes: u64| json!({"size_gib": bytes.div_ceil(1 << 30), "format": Format::Qcow2});
    fill("disks", machine.disks.iter().map(|one| disk(one.size_bytes)).collect());
    let spec = json!({
        "architecture": machine.architecture(), "vcpus": machine.vcpus,
        "memory_mib": machine.memory_mib,
    });
    fill("spec", spec);
    // Each interface keeps its hardware address, in its own place.
    for (at, nic) in machine.nics.iter().enumerate() {
        if let Some(asked) = body["nics"].get_mut(at)
            && asked["mac"].is_null()
        {
            asked["mac"] = json!(nic.mac);
        }
    }
    // It comes to where other hosts can reach.
    let mut labels = body["wishes"]["labels"].as_array().cloned().unwrap_or_default();
    if !labels.contains(&json!(LIVE)) {
        labels.push(json!(LIVE));
    }
    if body["wishes"].is_null() {
        body["wishes"] = json!({});
    }
    body["wishes"]["labels"] = json!(labels);
    let id = id_of(gathering.id);
    let source = Source { id, provider: provider.name().to_owned(), machine };
    body["move_in"]["found"] = json!(source);
    Ok(())
}
