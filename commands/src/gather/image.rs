//! The store that a new image is uploaded to, if it can be; the image that a server's command names.

use domain::{
    compute::image::{Definition, Source},
    kernel::{Refusal, codes},
};
use uuid::Uuid;

use super::{GatherFault, Gathering, backup};

/// Looks whether the image may lie there.
pub(super) async fn store(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    // What does not read is refused by the decider, with what is wrong.
    let Ok(definition) = serde_json::from_value::<Definition>(gathering.body.clone()) else {
        return Ok(());
    };
    match definition.source {
        Source::Store(store) => backup::usable_store(gathering, store, definition.project).await,
        Source::Upload | Source::Url(_) => Ok(()),
    }
}

/// The image that a command names, if any. One that does not read is the decider's to refuse, with what is
/// wrong.
pub(super) fn named(
    gathering: &Gathering<'_>,
) -> Result<serde_json::Result<Option<Uuid>>, GatherFault> {
    if !gathering.body["found"].is_null() {
        let detail = "found: is found, not given; name the image";
        return Err(Refusal::new(&codes::INVALID_FIELD, detail).into());
    }
    Ok(serde_json::from_value(gathering.body["image"].clone()))
}
