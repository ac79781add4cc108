//! The image that a server's root disk is made from again, as it is now.

use domain::compute::{
    image::{Image, Source},
    server::Server,
};
use serde_json::json;

use super::{GatherFault, Gathering, image::named, launch::one};

/// Puts the image into the command.
pub(super) async fn find(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    let Ok(named) = named(gathering)? else { return Ok(()) };
    let id = gathering.id.to_string();
    let server = gathering.ledger.typed::<Server>(&id).await?.1;
    // What is in the way is the decider's to say.
    let stop = gathering.body["stop"] == true;
    if server.check_rebuild(stop).is_err() {
        return Ok(());
    }
    let own = server.home.as_ref().and_then(|home| home.parts.image.as_ref());
    let named = match named {
        // Where its file was uploaded, it goes with the image.
        None => match own.filter(|own| matches!(own.source, Source::Store(_))) {
            Some(own) => {
                let project = server.observation.project;
                let id = own.id;
                let image: Image = one(gathering, "image", id, project, true).await?;
                Some((id, image.ensure_usable()?.clone()))
            }
            None => None,
        },
        Some(id) => {
            let project = server.observation.project;
            let image: Image = one(gathering, "image", id, project, true).await?;
            Some((id, image.ensure_usable()?.clone()))
        }
    };
    gathering.body["found"] = json!(server.image_again(named)?);
    Ok(())
}
