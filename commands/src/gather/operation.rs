//! What operations of a server of our own need: a place of another size, the system it is rescued with,
//! and passwords, sealed for it alone.
//!
//! A password that is made up is the caller's to read once, in the answer.

use domain::{
    compute::{
        host::Host,
        placement::{Device, Placement},
        server::{Server, devices::Found, password::check_password},
    },
    kernel::{Decider, Refusal, codes},
};
use serde_json::{Value, json};

use super::{GatherFault, Gathering, flavour};
use crate::{
    fleet::PlaceFault,
    ledger::{LoadFault, password_context},
    plan::{Looked, Saw},
};

/// Letters of a password that is made up: 120 random bits, and short enough to be typed at a console.
const PASSWORD_CHARS: usize = 20;

/// Puts the place of a server of another size into the command.
pub(super) async fn resize(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    not_given(gathering, "placement")?;
    let server = server(gathering).await?;
    flavour::resize(gathering, &server).await?;
    let body = &gathering.body;
    let (Ok(vcpus), Ok(memory_mib)) = (
        serde_json::from_value::<Option<u32>>(body["vcpus"].clone()),
        serde_json::from_value::<Option<u64>>(body["memory_mib"].clone()),
    ) else {
        // What does not read is refused by the decider, with what is wrong.
        return Ok(());
    };
    // What is in the way, and that nothing is to be done, is the decider's to say.
    let Ok(Some((vcpus, memory_mib))) = server.resizable(vcpus, memory_mib) else {
        return Ok(());
    };
    let Some(home) = &server.home else { return Ok(()) };
    let request = home.request(vcpus, memory_mib);
    let host = home.placement.host;
    let placement = gathering.ledger.place_again(&request, host).await;
    gathering.body["placement"] = json!(placed(gathering, placement)?);
    Ok(())
}

/// Puts the devices that a server gets into the command, and all that it has then.
pub(super) async fn add_device(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    not_given(gathering, "found")?;
    let server = server(gathering).await?;
    // What does not read is refused by the decider, and what is in the way is its to say.
    let Ok(asked) = serde_json::from_value(gathering.body["device"].clone()) else {
        return Ok(());
    };
    let (Ok(devices), Some(home)) = (server.asks_with(&asked), &server.home) else {
        return Ok(());
    };
    let placement = gathering.ledger.place_devices(&home.placement, None, Some(&asked)).await;
    let placement = Box::new(placed(gathering, placement)?);
    gathering.body["found"] = json!(Found { devices, placement });
    Ok(())
}

/// Puts what a server has without one of its devices into the command.
pub(super) async fn remove_device(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    not_given(gathering, "found")?;
    let server = server(gathering).await?;
    let Some(device) = gathering.body["device"].as_str().map(str::to_owned) else {
        return Ok(());
    };
    let Some(home) = server.home.as_ref().filter(|_| server.check_removal_of(&device).is_ok())
    else {
        return Ok(());
    };
    let host = gathering.ledger.typed::<Host>(&home.placement.host.to_string()).await?.1;
    let seen = host.seen.iter().flat_map(|seen| &seen.devices).find(|one| one.id == device);
    let devices = match seen.cloned() {
        // What it was when it was given, whatever is in its place by now.
        Some(seen) => {
            let model = home.placement.holding.models.get(&device).cloned().unwrap_or(seen.model);
            home.asks_without(&Device { model, ..seen })
        }
        None => home.spec.devices.clone(),
    };
    let placement = gathering.ledger.place_devices(&home.placement, Some(&device), None).await;
    let placement = Box::new(placed(gathering, placement)?);
    gathering.body["found"] = json!(Found { devices, placement });
    Ok(())
}

/// A place, or why there is none, as far as who asks may know.
fn placed(
    gathering: &Gathering<'_>,
    placement: Result<Placement, PlaceFault>,
) -> Result<Placement, GatherFault> {
    let reaches_hosts = gathering.principal.reach.covers(None);
    placement.map_err(|fault| match fault {
        PlaceFault::Refused(refusal) => {
            GatherFault::Refused(super::placement::for_reach(refusal, reaches_hosts))
        }
        PlaceFault::Load(fault) => GatherFault::Load(fault),
    })
}

/// Puts the system that its host has for it into the command, and a password.
pub(super) async fn rescue(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    not_given(gathering, "system")?;
    not_given(gathering, "password")?;
    let server = server(gathering).await?;
    // What is in the way is the decider's to say.
    if server.check_rescue().is_err() {
        return Ok(());
    }
    let Some(home) = &server.home else { return Ok(()) };
    let id = home.placement.host.to_string();
    let (revision, host) = gathering.ledger.typed::<Host>(&id).await?;
    let saw = Saw { kind: Host::KIND.to_owned(), id, mark: revision.to_string() };
    Looked { saw, revision }.note(&mut gathering.looked);
    let architecture = home.spec.architecture;
    let Some(system) = host.settings.rescue.get(&architecture) else {
        let name = json!(architecture);
        let detail = format!("its host has none for {}", name.as_str().unwrap_or_default());
        return Err(Refusal::new(&codes::NO_RESCUE_SYSTEM, detail).into());
    };
    gathering.body["system"] = json!(system);
    make_up(gathering)
}

/// Seals the password of somebody inside a server, and makes one up when none is given.
pub(super) fn password(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    match gathering.body["password"].clone() {
        Value::Null => make_up(gathering),
        Value::String(password) => {
            check_password(&password)?;
            seal(gathering, &password)
        }
        // Whatever it is, nothing of it goes further.
        _ => {
            let detail = "password: is a text";
            Err(Refusal::new(&codes::INVALID_FIELD, detail).into())
        }
    }
}

fn make_up(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    let secret = gathering.ledger.ports.ids.new_secret();
    let password = secret[secret.len().saturating_sub(PASSWORD_CHARS)..].to_owned();
    seal(gathering, &password)?;
    gathering.secret = Some(password);
    Ok(())
}

fn seal(gathering: &mut Gathering<'_>, password: &str) -> Result<(), GatherFault> {
    let context = password_context(&gathering.id.to_string());
    let sealed = gathering.ledger.ports.vault.seal(password.as_bytes(), &context);
    let sealed = sealed.map_err(LoadFault::from)?;
    if let Value::Object(body) = &mut gathering.body {
        body.insert("password".to_owned(), json!(sealed));
    }
    Ok(())
}

async fn server(gathering: &Gathering<'_>) -> Result<Server, GatherFault> {
    Ok(gathering.ledger.typed::<Server>(&gathering.id.to_string()).await?.1)
}

fn not_given(gathering: &Gathering<'_>, field: &str) -> Result<(), GatherFault> {
    if gathering.body[field].is_null() {
        return Ok(());
    }
    let detail = format!("{field}: is found, not given");
    Err(Refusal::new(&codes::INVALID_FIELD, detail).into())
}
