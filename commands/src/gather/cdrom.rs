//! The disc that is put into a server's drive, as it is now.

use domain::compute::{
    image::{Definition, Image},
    server::{Server, cdrom::Cdrom},
};
use serde_json::json;
use uuid::Uuid;

use super::{GatherFault, Gathering, image::named, launch::one};

/// Puts the disc into the command.
pub(super) async fn find(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    let Ok(Some(id)) = named(gathering)? else { return Ok(()) };
    let of = gathering.id.to_string();
    let server = gathering.ledger.typed::<Server>(&of).await?.1;
    // What is in the way is the decider's to say.
    if server.check_change_cdrom().is_err() {
        return Ok(());
    }
    let Some(home) = &server.home else { return Ok(()) };
    let definition = disc(gathering, "image", id, server.observation.project).await?;
    let cdrom = Cdrom::with(id, definition, home.spec.architecture)?;
    gathering.body["found"] = json!(cdrom.image);
    Ok(())
}

/// An image that is there, and that the server's project may have.
pub(super) async fn disc(
    gathering: &mut Gathering<'_>,
    field: &str,
    id: Uuid,
    project: Option<Uuid>,
) -> Result<Definition, GatherFault> {
    let image: Image = one(gathering, field, id, project, true).await?;
    Ok(image.ensure_usable()?.clone())
}
