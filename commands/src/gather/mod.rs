//! What must be known before a command can be decided. Each gatherer looks things up, puts them
//! into the command's body, and says what it looked at.

mod account;
mod addresses;
mod adoption;
mod backup;
mod backup_plan;
mod backup_set;
mod bill_source;
mod bounds;
mod cdrom;
mod console;
mod disk;
mod flavour;
mod image;
mod launch;
mod mapping;
mod migrate;
mod move_in;
mod network;
mod nic;
mod operation;
mod placement;
mod project;
mod rebuild;
mod segment;
mod token;
mod volume;

pub use bounds::Bound;
pub(crate) use mapping::{has_region, look_at_account};
pub(crate) use placement::{for_reach, is_placed};
pub(crate) use project::look_at_project;
pub use token::secret_digest;

use domain::{
    compute::{placement::Request, server::home::Launch},
    kernel::{Kind, Principal, Refusal},
};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    ledger::{Ledger, LoadFault},
    plan::Looked,
};

/// A refusal of a rule, or a fault of the world.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GatherFault {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Load(#[from] LoadFault),
}

/// A command on its way to its decider.
pub(crate) struct Gathering<'a> {
    pub(crate) ledger: &'a Ledger,
    pub(crate) kind: &'static Kind,
    pub(crate) id: Uuid,
    pub(crate) verb: &'a str,
    pub(crate) principal: &'a Principal,
    /// Whether the stream has records.
    pub(crate) exists: bool,
    pub(crate) body: Value,
    /// What was looked at: the stream itself first.
    pub(crate) looked: Vec<Looked>,
    /// Names that it takes which others gave up, or that nobody had: each by the revision at which that was so.
    pub(crate) takes: Vec<(String, u64)>,
    /// Goes to the caller, once, and nowhere else.
    pub(crate) secret: Option<String>,
}

/// Looks up what this command needs.
pub(crate) async fn gather(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    match (gathering.kind.name, gathering.verb) {
        ("backup", "abandon") => backup::lost(gathering).await?,
        ("backup", "assign") => backup::assign(gathering).await?,
        ("backup", "create") => backup::create(gathering).await?,
        ("backup-plan", "define") => backup_plan::find(gathering).await?,
        ("backup-plan", "retire") => {}
        ("backup-set", "abandon") => backup_set::lost(gathering).await?,
        ("backup-set", "create") => backup_set::create(gathering).await?,
        ("backup-set", "delete") => backup_set::delete(gathering).await?,
        ("backup-store", "create" | "update-credential") => backup::seal(gathering).await?,
        ("backup-store", "retire") => backup::empty(gathering).await?,
        ("bill-source", "define") => bill_source::seal(gathering).await?,
        ("bill-source", "retire") => {}
        ("cloud-account", "connect" | "update-credential") => account::seal(gathering).await?,
        ("cloud-account", "configure") => account::settings(gathering).await?,
        ("disk", "attach") => disk::attach(gathering).await?,
        ("disk", "create") => disk::create(gathering).await?,
        ("disk", "grow") => volume::grow(gathering).await?,
        ("disk", "restore") => backup::restore(gathering).await?,
        ("host", "adopt") => adoption::look(gathering).await?,
        ("image", "define") => image::store(gathering).await?,
        ("network", "define") => network::place(gathering).await?,
        ("network", "give") => network::draw(gathering),
        ("security-group", "retire") => nic::unused(gathering).await?,
        ("segment", "change" | "define") => segment::alone(gathering).await?,
        ("server", "add-device") => operation::add_device(gathering).await?,
        ("server", "add-nic") => nic::add(gathering).await?,
        ("server", "change-addresses") => addresses::find(gathering).await?,
        ("server", "change-nic") => nic::change(gathering).await?,
        ("server", "evacuate") => migrate::evacuate(gathering).await?,
        ("server", "follow-groups") => nic::follow(gathering).await?,
        ("server", "launch") => {
            launch_parts(gathering).await?;
            return placement::place(gathering).await;
        }
        ("server", "migrate") => migrate::migrate(gathering).await?,
        ("server", "open-console") => console::ticket(gathering)?,
        ("server", "change-cdrom") => cdrom::find(gathering).await?,
        ("server", "release") => adoption::unused(gathering).await?,
        ("server", "rebuild") => rebuild::find(gathering).await?,
        ("server", "remove-device") => operation::remove_device(gathering).await?,
        ("server", "rescue") => operation::rescue(gathering).await?,
        ("server", "resize") => operation::resize(gathering).await?,
        ("server", "set-password") => operation::password(gathering)?,
        ("snapshot", "abandon") => backup::snapshot_lost(gathering).await?,
        ("snapshot", "create") => backup::snapshot(gathering).await?,
        ("snapshot", "delete" | "roll-back") => backup::snapshot_now(gathering).await?,
        ("token", "issue") => token::mint(gathering)?,
        ("cloud-account", "sync") => account::scope(gathering).await?,
        (_, "declare") => mapping::place(gathering).await?,
        (_, "retire") => mapping::nowhere(gathering).await?,
        _ => {}
    }
    project::check(gathering).await
}

/// Looks up what a server that is launched is made of.
async fn launch_parts(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    project::check(gathering).await?;
    flavour::launch(gathering).await?;
    backup_set::launch(gathering).await?;
    move_in::launch(gathering).await?;
    flavour::said(gathering)?;
    launch::find(gathering).await
}

/// A launch up to what it asks of the fleet, and how many more of it there can be whatever hosts have room; none
/// when it does not read.
pub(crate) async fn launch_asked(
    gathering: &mut Gathering<'_>,
) -> Result<Option<(Launch, Request, Vec<Bound>)>, GatherFault> {
    launch_parts(gathering).await?;
    let Some((launch, request)) = placement::asked(gathering)? else { return Ok(None) };
    launch.check_asked()?;
    request.check()?;
    let bounds = bounds::bounds(gathering, &launch).await?;
    Ok(Some((launch, request, bounds)))
}
