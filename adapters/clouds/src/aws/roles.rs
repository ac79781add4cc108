//! Roles that a credential takes on, kept for as long as STS lends them.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use chrono::{DateTime, TimeDelta, Utc};
use commands::ports::DriverFault;
use uuid::Uuid;

use super::{
    credential::{Credential, Keys},
    endpoint::Service,
    query::{Form, Session},
    wire::AssumeAnswer,
};

/// Keys are renewed this long before they end, so that none ends in the middle of a listing.
const MARGIN: TimeDelta = TimeDelta::minutes(5);
/// Accounts whose keys are kept at once; past that all are asked for again.
const KEPT_MAX: usize = 1_000;

/// Keys of roles, by the credential that takes them on and the end-point that lends them.
#[derive(Debug, Default)]
pub(super) struct Roles(Mutex<HashMap<Borrower, Lent>>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Borrower {
    credential: Credential,
    endpoint: Option<String>,
    account: Uuid,
}

#[derive(Clone, Debug)]
struct Lent {
    keys: Keys,
    ends: DateTime<Utc>,
}

impl Roles {
    /// The session in the name of the role, or as it is when the credential names none.
    pub(super) async fn take_on<'a>(
        &self,
        session: Session<'a>,
        credential: &Credential,
        account: Uuid,
    ) -> Result<Session<'a>, DriverFault> {
        let Some(role) = &credential.role_arn else { return Ok(session) };
        let borrower = Borrower {
            credential: credential.clone(),
            endpoint: session.endpoint.map(str::to_owned),
            account,
        };
        let now = DateTime::<Utc>::from(SystemTime::now());
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&borrower).cloned();
        let keys = match kept {
            Some(lent) if lent.ends - MARGIN > now => lent.keys,
            _ => {
                let lent = borrow_role(&session, role, credential, account).await?;
                let keys = lent.keys.clone();
                let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.len() >= KEPT_MAX {
                    kept.clear();
                }
                kept.insert(borrower, lent);
                keys
            }
        };
        Ok(Session { keys, ..session })
    }
}

async fn borrow_role(
    session: &Session<'_>,
    role: &str,
    credential: &Credential,
    account: Uuid,
) -> Result<Lent, DriverFault> {
    let mut form = Form::default()
        .with("RoleArn", role)
        .with("RoleSessionName", format!("skyledger-{}", account.simple()));
    if let Some(id) = &credential.external_id {
        form.add("ExternalId", id);
    }
    let answer: AssumeAnswer =
        session.call(Service::Sts, &session.home, "AssumeRole", form).await?;
    let lent = answer.assume_role_result.credentials;
    let ends = DateTime::parse_from_rfc3339(&lent.expiration).map_err(|_| {
        DriverFault::Unexpected(format!("AssumeRole: `{}` is no time", lent.expiration))
    })?;
    Ok(Lent {
        keys: Keys {
            access_key_id: lent.access_key_id,
            secret_access_key: lent.secret_access_key,
            session_token: Some(lent.session_token),
        },
        ends: ends.into(),
    })
}
