//! The store that a new image is uploaded to, if it can be.

use domain::compute::image::{Definition, Source};

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
