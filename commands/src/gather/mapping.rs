//! Where a mapping is to live: its account must be there, ready and within the caller's reach, and
//! lends its provider, and its project when none is named.
//!
//! An account's credential works for who reaches the account. One that belongs to no project is
//! the estate's: only who reaches everything makes something new in it. What is in it can be given
//! to a project (`assign`), whose people then command that one thing, and nothing else of it.

use domain::{
    kernel::{Refusal, Role, canonical_bytes, codes},
    tenancy::cloud_account::CloudAccount,
};
use serde_json::json;
use uuid::Uuid;

use super::{GatherFault, Gathering};
use crate::{
    ledger::{Ledger, LoadFault},
    plan::{Looked, Saw},
    submit::short_digest,
};

pub(super) async fn place(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    if gathering.body.get("provider").is_some_and(|provider| !provider.is_null()) {
        let detail = "provider: is the account's, leave it out";
        return Err(Refusal::new(&codes::INVALID_FIELD, detail).into());
    }
    let account = gathering.body["account"].as_str().and_then(|id| id.parse::<Uuid>().ok());
    // Left out: the decider knows the account, or refuses. Not a UUID: the decider's type says so.
    let Some(id) = account.filter(|_| !gathering.exists) else { return Ok(()) };
    let (looked, account) = look_at_account(gathering.ledger, id).await?;
    looked.note(&mut gathering.looked);
    let Some(account) = account else {
        let detail = format!("account: there is no cloud account {id}");
        return Err(Refusal::new(&codes::INVALID_FIELD, detail).into());
    };
    // The handler has asked for the role.
    gathering.principal.authorise(Role::Viewer, account.project)?;
    if !gathering.body.is_object() {
        return Ok(());
    }
    gathering.body["provider"] = json!(account.provider);
    if gathering.body["project"].is_null() {
        gathering.body["project"] = json!(account.project);
    }
    Ok(())
}

/// What a decision asks of an account: ready or not, and for whom.
pub(crate) async fn look_at_account(
    ledger: &Ledger,
    id: Uuid,
) -> Result<(Looked, Option<CloudAccount>), LoadFault> {
    let (revision, account) = ledger.account_at(id).await?;
    let aspect = account.as_ref().map(|account| {
        json!([
            account.is_ready(),
            account.provider,
            account.project,
            account.endpoint,
            account.settings,
        ])
    });
    let mark = short_digest(&canonical_bytes(&aspect));
    let saw = Saw { kind: "cloud-account".to_owned(), id: id.to_string(), mark };
    Ok((Looked { saw, revision }, account))
}
