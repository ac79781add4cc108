//! Where a mapping is to live: its account must be there, ready and within the caller's reach, and
//! lends its provider, and its project when none is named.
//!
//! An account's credential works for who reaches the account. One that belongs to no project is
//! the estate's: only who reaches everything makes something new in it. What is in it can be given
//! to a project (`assign`), whose people then command that one thing, and nothing else of it.

use domain::{
    kernel::{Refusal, Role, State, canonical_bytes, codes},
    kinds,
    observation::Origin,
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

/// A mapping that lies nowhere has nothing to delete: where its kind lies in regions and its own is
/// missing, or is none that was ever seen in the account, nothing can have been made.
pub(super) async fn nowhere(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    let Gathering { ledger, kind, id, .. } = gathering;
    if gathering.body.get("nowhere").is_some() {
        let detail = "nowhere: is the server's to fill in";
        return Err(Refusal::new(&codes::INVALID_FIELD, detail).into());
    }
    let facets = ledger.load(kind, &id.to_string()).await?.state.facets();
    let (Some(account_id), None) = (facets.account, &facets.external_id) else { return Ok(()) };
    let Some(account) = ledger.account(account_id).await? else { return Ok(()) };
    let table = ledger.provider(&account.provider).map(|provider| provider.table());
    let row = table.and_then(|table| table.iter().find(|row| row.kind == kind.name));
    if !row.is_some_and(|row| row.regional) {
        return Ok(());
    }
    let nowhere = match &facets.region {
        None => true,
        // Before the first look at everything nobody knows the regions.
        Some(_) if account.last_whole_run.is_none() || !lists_regions(ledger, &account) => false,
        Some(region) => region_of(ledger, account_id, &account, region).await?.is_none(),
    };
    if nowhere && gathering.body.is_object() {
        gathering.body["nowhere"] = json!(true);
    }
    Ok(())
}

/// Whether regions are seen at all: not every provider lists them.
fn lists_regions(ledger: &Ledger, account: &CloudAccount) -> bool {
    let table = ledger.provider(&account.provider).map(|provider| provider.table());
    table.is_some_and(|table| table.iter().any(|row| row.kind == "region" && row.listed))
}

/// Whether the account has this region, as it was seen last; where regions are not seen, any.
pub(crate) async fn has_region(
    ledger: &Ledger,
    id: Uuid,
    account: &CloudAccount,
    region: &str,
) -> Result<bool, LoadFault> {
    if !lists_regions(ledger, account) {
        return Ok(true);
    }
    let state = region_of(ledger, id, account, region).await?;
    Ok(state.is_some_and(|state| !state.facets().gone))
}

/// The region of an account with this name, if it was ever seen: whoever claimed it.
async fn region_of(
    ledger: &Ledger,
    id: Uuid,
    account: &CloudAccount,
    region: &str,
) -> Result<Option<Box<dyn State>>, LoadFault> {
    let Some(kind) = kinds::by_name("region") else { return Ok(None) };
    let origin = Origin {
        provider: account.provider.clone(),
        account: id,
        region: None,
        external_id: region.to_owned(),
    };
    let Some(seen) = ledger.claimed_by(&origin.claim(kind.name)).await? else { return Ok(None) };
    Ok(Some(ledger.load(kind, &seen.to_string()).await?.state))
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
