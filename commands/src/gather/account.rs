//! A credential: checked against its provider's shape, then sealed. From here on nobody sees it.
//! Settings, which are no secret. A sync: of kinds that the provider lists and of regions that the
//! account has.

use domain::kernel::{Refusal, canonical_value, codes};
use serde_json::{Value, json};

use super::{GatherFault, Gathering, has_region};
use crate::ledger::{LoadFault, credential_context};

pub(super) async fn seal(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    let ledger = gathering.ledger;
    let invalid = |detail: String| Refusal::new(&codes::INVALID_FIELD, detail);
    let credential = gathering.body["credential"].clone();
    if !credential.is_object() {
        return Err(invalid("credential: needs an object".to_owned()).into());
    }
    let provider = match gathering.verb {
        "connect" => gathering.body["provider"].as_str().unwrap_or_default().to_owned(),
        _ => match ledger.account(gathering.id).await? {
            Some(account) => account.provider,
            // The decider refuses it: there is no such account.
            None => {
                blank(gathering);
                return Ok(());
            }
        },
    };
    let Some(driver) = ledger.provider(&provider) else {
        let known: Vec<_> = ledger.ports.providers.iter().map(|one| one.name()).collect();
        let detail = format!("provider: `{provider}` is not one of {}", known.join(", "));
        return Err(Refusal::new(&codes::UNSUPPORTED, detail).into());
    };
    let wrong = driver.check_credential(&credential);
    if !wrong.is_empty() {
        return Err(invalid(format!("credential: {}", wrong.join("; "))).into());
    }
    let context = credential_context(gathering.id);
    let sealed = ledger
        .ports
        .vault
        .seal(&canonical_value(&credential), &context)
        .map_err(LoadFault::from)?;
    gathering.body["credential"] = json!(sealed);
    Ok(())
}

/// Settings that its provider does not know are refused: nothing would ever read them.
pub(super) async fn settings(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    let ledger = gathering.ledger;
    // What is no object, and an account that is not there, are the decider's to refuse.
    let Some(settings) = gathering.body["settings"].as_object() else { return Ok(()) };
    let Some(account) = ledger.account(gathering.id).await? else { return Ok(()) };
    let Some(provider) = ledger.provider(&account.provider) else { return Ok(()) };
    let wrong = provider.check_settings(settings);
    if wrong.is_empty() {
        return Ok(());
    }
    let detail = format!("settings: {}", wrong.join("; "));
    Err(Refusal::new(&codes::INVALID_FIELD, detail).into())
}

/// Nothing of a credential goes further, whatever comes of the command.
fn blank(gathering: &mut Gathering<'_>) {
    gathering.body["credential"] = Value::String(String::new());
}

/// A run of what is not there would look at nothing, and call that complete.
pub(super) async fn scope(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    let ledger = gathering.ledger;
    let invalid = |detail: String| Refusal::new(&codes::INVALID_FIELD, detail);
    let texts = |name: &str| -> Vec<String> {
        let items = gathering.body[name].as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    // No such account, or a provider that is none here: the decider says so.
    let Some(account) = ledger.account(gathering.id).await? else { return Ok(()) };
    let Some(provider) = ledger.provider(&account.provider) else { return Ok(()) };
    let listed: Vec<&str> =
        provider.table().iter().filter(|row| row.listed).map(|row| row.kind).collect();
    for kind in texts("kinds") {
        if !listed.contains(&kind.as_str()) {
            let detail = format!(
                "kinds: {} lists no `{kind}`, only {}",
                account.provider,
                listed.join(", ")
            );
            return Err(invalid(detail).into());
        }
    }
    // Before the first look at everything nobody knows the regions; the run itself finds out.
    if account.last_whole_run.is_none() {
        return Ok(());
    }
    for region in texts("regions") {
        if !has_region(ledger, gathering.id, &account, &region).await? {
            let detail = format!("regions: the account does not have the region `{region}`");
            return Err(invalid(detail).into());
        }
    }
    Ok(())
}
