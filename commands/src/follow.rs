//! Servers of our own follow their security groups: when a group's rules change, every server that names it
//! is ordered to enforce them.
//!
//! It takes no input. A look compares what each server has recorded with what its groups say now, and may
//! be had at any time by several processes: a server that follows already has nothing to do. Which groups
//! every server follows is remembered, so that a look at an estate in which no group has changed is one at
//! its groups alone. That leaves nothing out: a server that names a group is recorded only while the group is
//! as it was read.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use domain::{compute::server::Server, kernel::Decider, kinds};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    ledger::Ledger,
    ports::{Query, Row, ViewFault},
    submit::{Submission, SubmitFault},
};

/// How long the inventory is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// The security groups that a server's row names, with the rules that it follows.
pub(crate) fn named_by(row: &Value) -> BTreeMap<Uuid, &Value> {
    let groups = row["state"]["home"]["parts"]["groups"].as_object();
    let named = groups.into_iter().flatten();
    named.filter_map(|(id, rules)| Some((id.parse().ok()?, rules))).collect()
}

/// Looks after the servers of an estate.
pub struct Follower {
    ledger: Arc<Ledger>,
    /// Where the log stood at the last look after which nothing was left to do.
    looked: Option<u64>,
    /// Groups, with the revision that every server follows.
    followed: BTreeMap<Uuid, u64>,
}

impl Follower {
    /// One that has not looked yet.
    pub fn new(ledger: Arc<Ledger>) -> Self {
        Self { ledger, looked: None, followed: BTreeMap::new() }
    }

    /// Looks once, and gives how many servers were ordered to follow.
    ///
    /// # Errors
    /// When the inventory cannot be read. A server that cannot be ordered to is left for the next look.
    pub async fn pass(&mut self) -> Result<usize, ViewFault> {
        let ledger = Arc::clone(&self.ledger);
        let head = ledger.ports.log.head().await?.position;
        if self.looked == Some(head) {
            return Ok(0);
        }
        ledger.ports.views.reach_position(head, PATIENCE).await?;
        let groups = rows(&ledger, "security-group").await?;
        let mut changed = BTreeMap::new();
        for row in &groups {
            let (Ok(id), Some(revision)) = (row.key.parse::<Uuid>(), row.body["revision"].as_u64())
            else {
                continue;
            };
            if self.followed.get(&id) != Some(&revision) {
                changed.insert(id, (revision, &row.body["state"]["wanted"]["rules"]));
            }
        }
        let (mut ordered, mut left) = (0, false);
        if !changed.is_empty() {
            for row in rows(&ledger, Server::KIND).await? {
                let lags = named_by(&row.body)
                    .into_iter()
                    .any(|(id, rules)| changed.get(&id).is_some_and(|(_, now)| *now != rules));
                if !lags {
                    continue;
                }
                if follow(&ledger, &row.key).await {
                    ordered += 1;
                } else {
                    left = true;
                }
            }
        }
        if !left {
            self.followed.extend(changed.into_iter().map(|(id, (revision, _))| (id, revision)));
            self.looked = Some(head);
        }
        Ok(ordered)
    }
}

/// Orders one server to follow; whether that was done.
async fn follow(ledger: &Ledger, key: &str) -> bool {
    let (Some(kind), Ok(id)) = (kinds::by_name(Server::KIND), key.parse::<Uuid>()) else {
        return true;
    };
    let who = Ledger::system("follow");
    match ledger.submit(Submission::new(who, kind, id, "follow-groups", json!({}))).await {
        Ok(_) => true,
        // Another order is out, or it is deleted and may be had back.
        Err(SubmitFault::Refused(_)) => false,
        Err(fault) => {
            tracing::warn!(server = %id, %fault, "a server does not follow its security groups");
            false
        }
    }
}

/// What there is of a kind for hosts of our own.
async fn rows(ledger: &Ledger, kind: &'static str) -> Result<Vec<Row>, ViewFault> {
    let mut query = Query::all().with("kind", kind).with("provider", "kvm").with("gone", false);
    query.limit = Query::LIMIT_MAX;
    let mut rows = Vec::new();
    loop {
        let page = ledger.ports.views.list("inventory", &query).await?;
        rows.extend(page.rows);
        match page.next {
            Some(next) => query.token = Some(next),
            None => return Ok(rows),
        }
    }
}
