//! Who reads the bills of a source: an account that is there, whose provider has object storage, or a
//! credential of its own, which is sealed as an account's is.

use domain::kernel::{Refusal, Role, canonical_value, codes};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{GatherFault, Gathering};
use crate::{
    gather::look_at_account,
    ledger::{LoadFault, source_context},
    pull::OWN_PROVIDER,
};

pub(super) async fn seal(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    let invalid = |detail: String| Refusal::new(&codes::INVALID_FIELD, detail);
    let ledger = gathering.ledger;
    // Bills are the estate's: whoever reaches single projects hears of no account that is not theirs.
    gathering.principal.authorise(Role::Admin, None)?;
    let account =
        gathering.body["place"]["account"].as_str().and_then(|id| id.parse::<Uuid>().ok());
    if let Some(id) = account {
        let (looked, account) = look_at_account(ledger, id).await?;
        looked.note(&mut gathering.looked);
        let Some(account) = account else {
            return Err(invalid(format!("place.account: there is no cloud account {id}")).into());
        };
        let provider = ledger.provider(&account.provider);
        if provider.is_none_or(|one| one.files().is_none()) {
            let detail = format!("place.account: bills are not read from {}", account.provider);
            return Err(Refusal::new(&codes::UNSUPPORTED, detail).into());
        }
    }
    match &gathering.body["credential"] {
        Value::Null => return Ok(()),
        credential if credential.is_object() => {}
        _ => return Err(invalid("credential: needs a file".to_owned()).into()),
    }
    let credential = gathering.body["credential"].take();
    let Some(driver) = ledger.provider(OWN_PROVIDER) else {
        let detail = format!("credential: this program has no provider {OWN_PROVIDER}");
        return Err(Refusal::new(&codes::UNSUPPORTED, detail).into());
    };
    let wrong = driver.check_credential(&credential);
    if !wrong.is_empty() {
        return Err(invalid(format!("credential: {}", wrong.join("; "))).into());
    }
    let context = source_context(gathering.id);
    let sealed = ledger.ports.vault.seal(&canonical_value(&credential), &context);
    gathering.body["credential"] = json!(sealed.map_err(LoadFault::from)?);
    Ok(())
}
