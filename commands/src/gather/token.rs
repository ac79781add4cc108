//! A token's secret: minted here, shown once, stored as a digest.

use domain::kernel::{Refusal, codes, sha256};
use serde_json::{Value, json};

use super::{GatherFault, Gathering};

/// Begins every secret, so that scanners for leaked secrets can find them.
const PREFIX: &str = "skyledger_";

pub(super) fn mint(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    let ids = &gathering.ledger.ports.ids;
    if gathering.body.get("secret_digest").is_some() {
        let detail = "secret_digest: is the server's to fill in";
        return Err(Refusal::new(&codes::INVALID_FIELD, detail).into());
    }
    let secret = format!("{PREFIX}{}", ids.new_secret());
    let digest = secret_digest(&secret);
    if let Value::Object(body) = &mut gathering.body {
        body.insert("secret_digest".to_owned(), json!(digest));
    }
    gathering.secret = Some(secret);
    Ok(())
}

/// SHA-256 in hex: enough for a secret of 256 random bits.
pub fn secret_digest(secret: &str) -> String {
    sha256(secret.as_bytes()).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}
