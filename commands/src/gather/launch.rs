//! What a server that is launched is made of: the image, the networks and the key pairs it names, as they
//! are now, and addresses for it.
//!
//! What is of the server's own project may be used, and what the caller reaches; an image of the estate by
//! everybody, for a project makes its servers from those.

use std::collections::BTreeSet;

use domain::{
    compute::{
        image::Image,
        key_pair::KeyPair,
        server::{
            home::{Launch, Reads},
            parts::{
                DISKS_MAX, Found, GROUPS_MAX, GroupRules, Joined, KEY_PAIRS_MAX, NICS_MAX, Parts,
                system,
            },
        },
        userdata::Userdata,
    },
    kernel::{Decider, Refusal, Role, codes},
    mapping::{Mapped, Stage},
    network::{net::Network, security_group::SecurityGroup, segment::Segment},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    GatherFault, Gathering,
    backup::{self, Read},
    backup_set,
    cdrom::disc,
    volume,
};
use crate::{
    fleet::Reached,
    ledger::{LoadFault, userdata_context},
    plan::{Looked, Saw},
};

/// Puts its parts into the command, and seals its userdata.
pub(super) async fn find(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    // The rule says that it exists already, and does not need parts for that.
    if gathering.exists {
        return Ok(());
    }
    if !matches!(gathering.body["parts"], Value::Null) {
        let detail = "parts: are found, not given; name image, disks and networks";
        return Err(Refusal::new(&codes::INVALID_FIELD, detail).into());
    }
    if !matches!(gathering.body["reads"], Value::Null) {
        let detail = "reads: is found, not given; name what disks are made from in `disks`";
        return Err(Refusal::new(&codes::INVALID_FIELD, detail).into());
    }
    // What does not read is refused by the decider, with what is wrong.
    let Ok(launch) = serde_json::from_value::<Launch>(gathering.body.clone()) else {
        return Ok(());
    };
    gathering.principal.authorise(Role::Operator, launch.project)?;
    // So many are looked up at most; the decider says which list is too long.
    let counts = [
        (launch.disks.len(), DISKS_MAX),
        (launch.nics.len(), NICS_MAX),
        (launch.key_pairs.len(), KEY_PAIRS_MAX),
    ];
    if counts.iter().any(|(is, most)| is > most) {
        return Ok(());
    }
    let mut found = Found::default();
    if let Some(id) = launch.image {
        let image: Image = one(gathering, "image", id, launch.project, true).await?;
        found.image = Some((id, image.ensure_usable()?.clone()));
    }
    if let Some(id) = launch.cdrom {
        found.cdrom = Some((id, disc(gathering, "cdrom", id, launch.project).await?));
    }
    let mut reads = Reads::default();
    for (at, ask) in launch.disks.iter().enumerate() {
        let Some(from) = ask.from else {
            found.sources.push(None);
            continue;
        };
        let field = format!("disks[{at}].from");
        let base = backup::source(gathering, &field, from, launch.project).await?;
        match base.read {
            Read::Anywhere => {}
            Read::At(host) => {
                let only = &launch.wishes.only;
                let others = reads.host.replace(host).is_some_and(|at| at != host);
                if others || (!only.is_empty() && !only.contains(&host)) {
                    let detail =
                        format!("{field}: its disk is on a host where the server may not go");
                    return Err(no(detail).into());
                }
            }
            Read::On(storage) => {
                reads.storages.insert(storage);
            }
        }
        found.sources.push(Some((base.source, base.size_gib)));
    }
    // A snapshot is where its disk is, and a server whose disk is made from it begins there. That is no wish: it
    // goes elsewhere as others do.
    if reads != Reads::default() {
        gathering.body["reads"] = json!(reads);
    }
    for (at, ask) in launch.nics.iter().enumerate() {
        let field = format!("nics[{at}].");
        let joined = joined(gathering, &field, ask.network, launch.project).await?;
        found.networks.push(joined);
        let rules = rules(gathering, &field, &ask.security_groups, launch.project).await?;
        found.groups.extend(rules);
    }
    for (at, ask) in launch.disks.iter().enumerate() {
        let Some(storage) = ask.storage else { continue };
        match gathering.ledger.reached(storage).await? {
            Reached::Folder => {}
            Reached::Group(group) => {
                // One that says no size is as large as what it is made from.
                let sources = found.sources.iter().map(Option::as_ref);
                let least = sources.map(|source| source.map_or(0, |(_, size_gib)| *size_gib));
                let disks = launch.disks.iter().zip(least);
                let disks = disks.filter(|(ask, _)| ask.storage == Some(storage));
                let asked: u64 = disks.map(|(ask, least)| ask.size_gib.max(least)).sum();
                volume::room(gathering, storage, group.room.as_ref(), asked << 10, None).await?;
                found.volume_groups.insert(storage, group);
            }
            Reached::Nowhere => {
                let detail = format!("disks[{at}].storage: no host says that it reaches {storage}");
                return Err(no(detail).into());
            }
        }
    }
    for (at, id) in launch.key_pairs.iter().enumerate() {
        let field = format!("key_pairs[{at}]");
        let pair: KeyPair = one(gathering, &field, *id, launch.project, false).await?;
        let key = pair.key.filter(|_| !pair.retired);
        let key = key.ok_or_else(|| no(format!("{field}: {id} is retired")))?;
        found.keys.push(key.line);
    }
    found.keys.extend(backup_set::keys(gathering, launch.backup_set).await?);
    let os = found.image.as_ref().map(|(_, definition)| definition.os);
    if let Some(content) = launch.userdata.clone() {
        let userdata = Userdata::read(content, system(os))?;
        let context = userdata_context(&gathering.id.to_string());
        let vault = &gathering.ledger.ports.vault;
        let sealed = vault.seal(userdata.content().as_bytes(), &context);
        gathering.body["userdata"] = json!(sealed.map_err(LoadFault::from)?);
    }
    let now = gathering.ledger.ports.clock.now();
    let parts = Parts::work_out(gathering.id, &launch, found, now)?;
    let functions = parts.functions();
    if !functions.is_empty() {
        // Wherever it goes later, it asks for them again.
        let mut spec = launch.spec.clone();
        spec.devices.extend(functions);
        gathering.body["spec"] = json!(spec);
    }
    if parts != Parts::default() {
        gathering.body["parts"] = json!(parts);
    }
    Ok(())
}

/// The network of an interface, with its segment.
pub(super) async fn network(
    gathering: &mut Gathering<'_>,
    field: &str,
    id: Uuid,
    project: Option<Uuid>,
) -> Result<(Network, Segment), GatherFault> {
    let field = format!("{field}network");
    let network: Network = one(gathering, &field, id, project, false).await?;
    let Some(own) = &network.own else { return Ok((network, Segment::default())) };
    let id = own.segment;
    let (revision, segment) = gathering.ledger.typed::<Segment>(&id.to_string()).await?;
    note(gathering, Segment::KIND, id, revision);
    Ok((network, segment))
}

/// The network of an interface that is new, with the other networks of its segment. None of them may have moved
/// when the interface gets its hardware address, for that is to be nobody's in any of them.
pub(super) async fn joined(
    gathering: &mut Gathering<'_>,
    field: &str,
    id: Uuid,
    project: Option<Uuid>,
) -> Result<Joined, GatherFault> {
    let (network, segment) = network(gathering, field, id, project).await?;
    let mut others = Vec::new();
    for other in segment.networks.keys().filter(|other| **other != id) {
        let (revision, network) = gathering.ledger.typed::<Network>(&other.to_string()).await?;
        note(gathering, Network::KIND, *other, revision);
        others.push(network);
    }
    Ok(Joined { network, segment, others })
}

/// The rules of the security groups that an interface names. A group of the estate guards everybody's.
pub(super) async fn rules(
    gathering: &mut Gathering<'_>,
    field: &str,
    groups: &BTreeSet<Uuid>,
    project: Option<Uuid>,
) -> Result<GroupRules, GatherFault> {
    let mut rules = GroupRules::new();
    // So many are looked up at most; the decider says that there are too many.
    for id in groups.iter().take(GROUPS_MAX + 1) {
        let field = format!("{field}security_groups");
        let group: Mapped<SecurityGroup> = one(gathering, &field, *id, project, true).await?;
        let wanted = group.wanted.filter(|_| group.stage == Stage::Own);
        let wanted = wanted.ok_or_else(|| {
            no(format!("{field}: {id} is not a group for hosts of our own that is in use"))
        })?;
        rules.insert(*id, wanted.rules);
    }
    Ok(rules)
}

fn no(detail: String) -> Refusal {
    Refusal::new(&codes::INVALID_FIELD, detail)
}

/// Something that the launch names, if the caller may have it. What they may not have is not there.
pub(super) async fn one<T: Decider>(
    gathering: &mut Gathering<'_>,
    field: &str,
    id: Uuid,
    project: Option<Uuid>,
    shared: bool,
) -> Result<T, GatherFault> {
    let (revision, state) = gathering.ledger.typed::<T>(&id.to_string()).await?;
    let whose = state.facets().project;
    let theirs = whose == project
        || (shared && whose.is_none())
        || gathering.principal.authorise(Role::Viewer, whose).is_ok();
    if revision == 0 || !theirs {
        return Err(no(format!("{field}: there is no {} {id} for it", T::KIND)).into());
    }
    note(gathering, T::KIND, id, revision);
    Ok(state)
}

pub(super) fn note(gathering: &mut Gathering<'_>, kind: &str, id: Uuid, revision: u64) {
    let saw = Saw { kind: kind.to_owned(), id: id.to_string(), mark: revision.to_string() };
    Looked { saw, revision }.note(&mut gathering.looked);
}
