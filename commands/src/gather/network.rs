//! A network of our own knows its id and its segment, which must be within the caller's reach; and a
//! random number is drawn for whoever asks it for an address.

use domain::{
    kernel::{Refusal, Role, codes, sha256},
    kinds,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{GatherFault, Gathering};
use crate::ledger::LoadFault;

/// Its own id, and whether its segment is there for this caller.
pub(super) async fn place(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    let invalid =
        |detail: String| GatherFault::Refused(Refusal::new(&codes::INVALID_FIELD, detail));
    if !matches!(gathering.body["id"], Value::Null) {
        return Err(invalid("id: is the server's to fill in".to_owned()));
    }
    // What does not read is refused by the decider, with what is wrong.
    let Some(segment) = gathering.body["segment"].as_str().and_then(|id| id.parse::<Uuid>().ok())
    else {
        return Ok(());
    };
    let kind = kinds::by_name("segment").ok_or_else(|| LoadFault::Missing("segments".into()))?;
    let (revision, state) = {
        let loaded = gathering.ledger.load(kind, &segment.to_string()).await?;
        (loaded.revision, loaded.state)
    };
    if revision == 0 {
        // Who does not reach everything is not told what there is.
        gathering.principal.authorise(Role::Viewer, None)?;
        return Err(invalid(format!("segment: there is no segment {segment}")));
    }
    gathering.principal.authorise(Role::Viewer, state.facets().project)?;
    gathering.body["id"] = json!(gathering.id);
    Ok(())
}

/// The random number, as the 128 bits of a UUID.
pub(super) fn draw(gathering: &mut Gathering<'_>) {
    if !gathering.body.is_object() || !matches!(gathering.body["chance"], Value::Null) {
        return;
    }
    let secret = sha256(gathering.ledger.ports.ids.new_secret().as_bytes());
    let mut bits = [0; 16];
    bits.copy_from_slice(&secret[..16]);
    gathering.body["chance"] = json!(Uuid::from_bytes(bits));
}
