//! The recycle bin: deleted servers whose time is over are removed for good.
//!
//! It only sends the command that a person could send, and only while nothing has happened to the
//! server since it was looked at: one that was had back meanwhile, and deleted again, has all of its
//! time once more. Several processes may do this at once; one of them is first.

use chrono::{DateTime, Utc};
use domain::{compute::server::Server, kernel::Decider, kinds};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    ledger::Ledger,
    ports::{Query, ViewFault},
    submit::{Submission, SubmitFault},
};

impl Ledger {
    /// Orders the removal of every deleted server whose time is over; gives how many.
    ///
    /// # Errors
    /// When the servers cannot be listed. One that cannot be ordered to go is told of and left for
    /// the next time.
    pub async fn empty_bin(&self) -> Result<usize, ViewFault> {
        let Some(kind) = kinds::by_name(Server::KIND) else { return Ok(0) };
        let query = Query::all().with("kind", Server::KIND).with("status", "deleted");
        let (now, mut purged) = (self.now(), 0);
        let (rows, _) = self.rows(query).await?;
        for row in rows.iter().filter(|row| is_over(&row.body, now)) {
            let Ok(id) = row.key.parse::<Uuid>() else { continue };
            let mut purge = Submission::new(Self::system("bin"), kind, id, "purge", json!({}));
            purge.if_match = row.body["revision"].as_u64();
            match self.submit(purge).await {
                Ok(_) => purged += 1,
                // Another process was first, or somebody had it back.
                Err(SubmitFault::Refused(_) | SubmitFault::Precondition { .. }) => {}
                Err(fault) => {
                    tracing::warn!(server = %id, %fault, "a deleted server could not be purged");
                }
            }
        }
        Ok(purged)
    }
}

fn is_over(row: &Value, now: DateTime<Utc>) -> bool {
    let until = row["state"]["home"]["deleted_until"].as_str();
    until.and_then(|until| until.parse::<DateTime<Utc>>().ok()).is_some_and(|until| until <= now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_deleted_is_over_when_its_time_has_come() {
        let now: DateTime<Utc> = "2026-03-04T12:00:00Z".parse().unwrap();
        let of = |until: &str| is_over(&json!({"state": {"home": {"deleted_until": until}}}), now);
        assert!(of("2026-03-04T12:00:00Z"));
        assert!(!of("2026-03-04T12:00:01Z"));
        assert!(!is_over(&json!({"state": {}}), now), "a server of a cloud");
    }
}
