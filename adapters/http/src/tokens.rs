//! Who asks: tokens, folded from the log into memory.
//!
//! A secret is looked up by its SHA-256. The map follows the `token` streams: a token that was
//! issued or revoked by this process is known at once, by another process after
//! [`FOLLOW_EVERY`]; a secret nobody knows is looked for once more at the log's head.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{PoisonError, RwLock, RwLockReadGuard, atomic::AtomicU64, atomic::Ordering},
    time::Duration,
};

use ::commands::ports::{AuditFilter, EventLog, LogFault};
use chrono::{DateTime, Utc};
use domain::{
    kernel::{Decider, Principal, Role, State},
    log::{Hash, Position},
    tenancy::token::Token,
};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// How long another process's revocation may take to be seen here, at most, beside the log's own
/// notification.
pub(crate) const FOLLOW_EVERY: Duration = Duration::from_millis(100);

/// Records of tokens read at once.
const PAGE: usize = 1_000;

/// Begins every secret; see `commands::gather`.
const PREFIX: &str = "skyledger_";

#[derive(Default)]
struct Known {
    tokens: HashMap<String, Token>,
    /// SHA-256 of the secret, and the token's id.
    by_secret: HashMap<Hash, String>,
}

/// The tokens there are.
#[derive(Default)]
pub(crate) struct Tokens {
    known: RwLock<Known>,
    checkpoint: AtomicU64,
    catching_up: tokio::sync::Mutex<()>,
}

impl Tokens {
    /// Who asks with this secret; none when nobody may.
    pub(crate) async fn principal(
        &self,
        secret: &str,
        now: DateTime<Utc>,
        log: &dyn EventLog,
    ) -> Result<Option<Principal>, LogFault> {
        // What cannot be a secret costs no look at the log.
        if !secret.starts_with(PREFIX) || secret.len() > 128 {
            return Ok(None);
        }
        let digest: Hash = Sha256::digest(secret.as_bytes()).into();
        if !self.read().by_secret.contains_key(&digest) {
            self.catch_up(log).await?;
        }
        Ok(self.by_digest(&digest, now))
    }

    /// The tokens of this name, by id, that may operate what is of this project.
    pub(crate) fn that_operate(
        &self,
        name: &str,
        project: Option<Uuid>,
        now: DateTime<Utc>,
    ) -> BTreeSet<String> {
        let may = |token: &Token| {
            let who = token.principal(now).filter(|who| who.name == name);
            who.is_some_and(|who| who.authorise(Role::Operator, project).is_ok())
        };
        let known = self.read();
        let those = known.tokens.iter().filter(|(_, token)| may(token));
        those.map(|(id, _)| id.clone()).collect()
    }

    fn by_digest(&self, digest: &Hash, now: DateTime<Utc>) -> Option<Principal> {
        let known = self.read();
        known.tokens.get(known.by_secret.get(digest)?)?.principal(now)
    }

    /// Folds what is new.
    pub(crate) async fn catch_up(&self, log: &dyn EventLog) -> Result<(), LogFault> {
        let _one_at_a_time = self.catching_up.lock().await;
        let filter = AuditFilter { kind: Some(Token::KIND.to_owned()), ..AuditFilter::default() };
        loop {
            let head = log.head().await?.position;
            let mut checkpoint = self.checkpoint.load(Ordering::Acquire);
            if head <= checkpoint {
                return Ok(());
            }
            let records = log.search(&filter, checkpoint, false, PAGE).await?;
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            for record in &records {
                known.fold(record.id(), record.event_type(), record.data());
                checkpoint = record.position();
            }
            if records.len() < PAGE {
                checkpoint = checkpoint.max(head);
            }
            self.checkpoint.store(checkpoint, Ordering::Release);
        }
    }

    /// Folds what is new, for ever.
    pub(crate) async fn follow(&self, log: &dyn EventLog) {
        loop {
            if let Err(fault) = self.catch_up(log).await {
                tracing::warn!(%fault, "tokens cannot be followed, trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
            log.appended(self.checkpoint()).await;
            tokio::time::sleep(FOLLOW_EVERY).await;
        }
    }

    fn checkpoint(&self) -> Position {
        self.checkpoint.load(Ordering::Acquire)
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn fold(&mut self, id: &str, event_type: &str, data: &[u8]) {
        let token = self.tokens.entry(id.to_owned()).or_default();
        if let Err(fault) = State::evolve(token, event_type, data) {
            // Better no access than one that a newer program has taken away.
            tracing::error!(token = id, %fault, "a token does not fold and is not accepted");
            token.grant = None;
            return;
        }
        if let Some(grant) = &token.grant
            && let Some(digest) = domain::log::hash_from_hex(&grant.secret_digest)
        {
            self.by_secret.insert(digest, id.to_owned());
        }
    }
}
