//! Servers of our own follow their security groups: when a group's rules change, every server that names it
//! is ordered to enforce them.
//!
//! It takes no input. A look compares what each server has recorded with what its groups say now, and may
//! be had at any time by several processes: a server that follows already has nothing to do. Which groups
//! are followed, and which servers wait, is remembered, so that a look at an estate in which no group has
//! changed is one at its groups and at those that wait alone. That leaves nothing out: a server that names a
//! group is recorded only while the group is as it was read.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

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
    /// Where the log stood at the last look after which nothing could be done.
    looked: Option<u64>,
    /// Groups, with the revision that every server follows, those that wait aside.
    followed: BTreeMap<Uuid, u64>,
    /// Servers that lag and could not be ordered to follow: another order is out, or they are deleted and
    /// may be had back.
    waiting: BTreeSet<String>,
}

impl Follower {
    /// One that has not looked yet.
    pub fn new(ledger: Arc<Ledger>) -> Self {
        Self { ledger, looked: None, followed: BTreeMap::new(), waiting: BTreeSet::new() }
    }

    /// Looks once, and gives how many servers were ordered to follow.
    ///
    /// # Errors
    /// When the inventory cannot be read. A server that cannot be ordered to is left for the next look
    /// after something has happened.
    pub async fn pass(&mut self) -> Result<usize, ViewFault> {
        let ledger = Arc::clone(&self.ledger);
        let head = ledger.ports.log.head().await?.position;
        if self.looked == Some(head) {
            return Ok(0);
        }
        ledger.ports.views.reach_position(head, PATIENCE).await?;
        let groups = rows(&ledger, "security-group").await?;
        let (mut now, mut revisions, mut changed) = (BTreeMap::new(), BTreeMap::new(), false);
        for row in &groups {
            let (Ok(id), Some(revision)) = (row.key.parse::<Uuid>(), row.body["revision"].as_u64())
            else {
                continue;
            };
            changed |= self.followed.get(&id) != Some(&revision);
            revisions.insert(id, revision);
            now.insert(id, &row.body["state"]["wanted"]["rules"]);
        }
        let lagging = if changed {
            rows(&ledger, Server::KIND).await?
        } else {
            let mut lagging = Vec::with_capacity(self.waiting.len());
            for key in &self.waiting {
                let row = ledger.ports.views.get("inventory", key, None).await?;
                lagging.extend(row.filter(|row| row.body["gone"] != true));
            }
            lagging
        };
        let (mut ordered, mut waiting, mut failed) = (0, BTreeSet::new(), false);
        for row in lagging {
            let mut named = named_by(&row.body).into_iter();
            if !named.any(|(id, rules)| now.get(&id).is_some_and(|now| *now != rules)) {
                continue;
            }
            match follow(&ledger, &row.key).await {
                Ok(()) => ordered += 1,
                Err(SubmitFault::Refused(_)) => drop(waiting.insert(row.key)),
                Err(fault) => {
                    tracing::warn!(server = row.key, %fault, "it does not follow its security groups");
                    waiting.insert(row.key);
                    failed = true;
                }
            }
        }
        (self.followed, self.waiting) = (revisions, waiting);
        // What stands in a server's way goes only when the log moves; a fault may go by itself.
        self.looked = Some(head).filter(|_| !failed);
        Ok(ordered)
    }
}

/// Orders one server to follow.
async fn follow(ledger: &Ledger, key: &str) -> Result<(), SubmitFault> {
    let (Some(kind), Ok(id)) = (kinds::by_name(Server::KIND), key.parse::<Uuid>()) else {
        return Ok(());
    };
    let who = Ledger::system("follow");
    ledger.submit(Submission::new(who, kind, id, "follow-groups", json!({}))).await.map(drop)
}

/// What there is of a kind for hosts of our own.
pub(crate) async fn rows(ledger: &Ledger, kind: &'static str) -> Result<Vec<Row>, ViewFault> {
    let query = Query::all().with("kind", kind).with("provider", "kvm").with("gone", false);
    Ok(ledger.rows(query).await?.0)
}
