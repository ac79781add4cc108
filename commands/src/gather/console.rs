//! A ticket for a console: made here, shown once, recorded as a digest.

use domain::kernel::{Refusal, codes};
use serde_json::json;

use super::{GatherFault, Gathering, secret_digest};

pub(super) fn ticket(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    for field in ["id", "ticket"] {
        if !gathering.body[field].is_null() {
            let detail = format!("{field}: is made, not given");
            return Err(Refusal::new(&codes::INVALID_FIELD, detail).into());
        }
    }
    let ids = &gathering.ledger.ports.ids;
    let ticket = ids.new_secret();
    gathering.body["id"] = json!(ids.new_id());
    gathering.body["ticket"] = json!(secret_digest(&ticket));
    gathering.secret = Some(ticket);
    Ok(())
}
