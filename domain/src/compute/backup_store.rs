//! Where backups lie: a place in an object store that speaks S3, and who may use it.
//!
//! ```text
//!          create               confirm            collect, import
//!  absent ───────► verifying ─────────────► ready ◄──────────────► collecting, importing
//!                   ▲     │ refuse            │
//!            verify │     ▼                   │ retire
//!                   └── refused               ▼
//!                                          retired
//! ```
//!
//! A store is verified before it is used: something is put there, listed, read and removed. A new
//! credential takes the old one's place when it was found to work. What backups there are is each
//! backup's own to say. Chunks that no backup needs any more go when the store is *collected*: at
//! most once a day by itself, or when somebody asks. It takes two looks to remove a chunk, see
//! [decision 24](../../../docs/adr/0024-backups-are-manifests-and-chunks.md); one collection has both, and
//! leaves what a backup that is being made might need to the next.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    kernel::{Decider, Facets, Orders, Outstanding, Refusal, Stamp, Verb, codes},
    tenancy::check_name,
};

/// Longest prefix, in bytes: S3 has keys of 1,024, and those of chunks have some 100.
const PREFIX_BYTES_MAX: usize = 500;
/// Longest address of a store, in characters.
const ENDPOINT_CHARS_MAX: usize = 500;
/// Longest reason for which a store was refused, in characters.
const REASON_CHARS_MAX: usize = 500;
/// Most of what does not read that an import names.
const UNREADABLE_MAX: usize = 100;
/// How long after its last collection a store is collected by itself.
pub const COLLECT_AFTER: TimeDelta = TimeDelta::days(1);

/// A place in an object store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BackupPlace")]
pub struct Place {
    /// Base URL of a store that speaks as S3 does, such as `https://s3.example.com:9000`; AWS's own
    /// when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The region that calls are signed for.
    #[serde(default = "us_east_1")]
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// What all keys begin with, such as `skyledger/`; what begins so is the store's alone.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
}

fn us_east_1() -> String {
    "us-east-1".to_owned()
}

impl Place {
    /// As people write it.
    pub fn url(&self) -> String {
        match &self.endpoint {
            Some(endpoint) => {
                format!("{}/{}/{}", endpoint.trim_end_matches('/'), self.bucket, self.prefix)
            }
            None => format!("s3://{}/{}", self.bucket, self.prefix),
        }
    }

    fn check(&self) -> Result<(), Refusal> {
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
        if !(3..=63).contains(&self.bucket.len())
            || !self.bucket.chars().all(word)
            || self.bucket.contains("..")
        {
            return Err(no("place.bucket: has 3 to 63 small letters, digits, hyphens and dots"));
        }
        let prefix = &self.prefix;
        let folder = prefix.is_empty()
            || (prefix.ends_with('/') && !prefix.starts_with('/') && !prefix.contains("//"));
        if prefix.len() > PREFIX_BYTES_MAX || !folder || prefix.chars().any(char::is_control) {
            let what = "ends with a slash, begins with none";
            return Err(no(format!("place.prefix: {what}, has at most {PREFIX_BYTES_MAX} bytes")));
        }
        let region = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !(1..=50).contains(&self.region.len()) || !self.region.chars().all(region) {
            return Err(no("place.region: reads like eu-central-1"));
        }
        let url = |one: &String| {
            one.chars().count() <= ENDPOINT_CHARS_MAX
                && ["http://", "https://"].iter().any(|scheme| {
                    one.strip_prefix(scheme).is_some_and(|rest| {
                        let host = rest.split('/').next().unwrap_or_default();
                        !host.is_empty()
                            && !rest.contains(['?', '#', '@', ' '])
                            && !rest.chars().any(char::is_control)
                    })
                })
        };
        if self.endpoint.as_ref().is_some_and(|one| !url(one)) {
            return Err(no("place.endpoint: reads like https://s3.example.com:9000"));
        }
        Ok(())
    }
}

fn no(detail: impl Into<String>) -> Refusal {
    Refusal::new(&codes::INVALID_FIELD, detail)
}

/// What a store can wait for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
#[schemars(rename = "BackupStoreOrder")]
pub enum Order {
    /// Remove what no backup needs.
    Collect {},
    /// Find the backups that lie there and that are not known here.
    Import {
        /// Whose they are from then on.
        project: Option<Uuid>,
    },
    /// Find out whether it can be used.
    Verify {
        /// Another credential than the one in use, sealed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        candidate: Option<String>,
    },
}

/// What a collection came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Collection {
    /// Chunks that no backup needed, and that are removed when nobody can count on them any more.
    pub condemned: u64,
    /// Chunks that were removed.
    pub removed: u64,
    /// Backups that are being made, or were broken off, whose end is waited for.
    #[serde(default)]
    pub waits_for: BTreeSet<Uuid>,
}

/// What an import came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BackupImport")]
pub struct Import {
    /// Backups that lie there.
    pub listed: u64,
    /// Those that were not known here.
    pub new: u64,
    /// Those that do not read, by disk and id: they are damaged, or sealed by another key. Sets that do not, or
    /// that have lost a backup, by their id. At most 100 are named.
    #[serde(default)]
    pub unreadable: Vec<String>,
    /// Sets of them that were not known here.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub new_sets: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Import {
    /// Something does not read, or is not whole.
    pub fn misses(&mut self, what: String) {
        if self.unreadable.len() < UNREADABLE_MAX {
            self.unreadable.push(what);
        }
    }
}

/// A command of a backup store.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "BackupStoreCommand")]
pub enum Command {
    /// Give up the order that is parked.
    Abandon {},
    /// Remove what no backup needs.
    Collect {},
    /// It can be used.
    Confirm {
        /// The order's number.
        number: u64,
    },
    /// The collection is through.
    ConfirmCollection {
        /// The order's number.
        number: u64,
        /// What it came to.
        sum: Collection,
    },
    /// The import is through.
    ConfirmImport {
        /// The order's number.
        number: u64,
        /// What it came to.
        sum: Import,
    },
    /// Say where backups lie.
    Create {
        /// What it is called, 1…100 characters.
        name: String,
        /// Whose disks may be backed up there; everybody's when it is left out.
        #[serde(default)]
        project: Option<Uuid>,
        /// Where.
        place: Place,
        /// `access_key_id` and `secret_access_key`; and `encryption_key`, 64 hexadecimal digits, with which
        /// everything is sealed before it is sent, where there is one: without it nobody reads these
        /// backups again. It is sealed at once and never shown again.
        #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
        credential: String,
    },
    /// Find the backups that lie there and that are not known here, as another installation has left
    /// them.
    Import {
        /// Whose they are from then on; the store's owner's when it is left out.
        #[serde(default)]
        project: Option<Uuid>,
    },
    /// The runner gives up until a person decides.
    Park {
        /// The order's number.
        number: u64,
        /// What stood in the way.
        reason: String,
    },
    /// It cannot be used.
    Refuse {
        /// The order's number.
        number: u64,
        /// Why.
        reason: String,
    },
    /// Make no backups there any more; there are none left.
    Retire {},
    /// Go on with the order that is parked.
    Retry {},
    /// Use another access key; the encryption key stays as it was.
    UpdateCredential {
        /// `access_key_id` and `secret_access_key`.
        #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
        credential: String,
    },
    /// Find out whether it can be used.
    Verify {},
}

/// A fact about a backup store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
#[schemars(rename = "BackupStoreEvent")]
pub enum Event {
    /// A parked order was given up.
    Abandoned {},
    /// It was collected.
    Collected {
        /// The order's number.
        number: u64,
        /// When.
        at: DateTime<Utc>,
        /// What came of it.
        sum: Collection,
    },
    /// What no backup needs is to go.
    CollectionOrdered {},
    /// Backups lie there.
    Created {
        /// What it is called.
        name: String,
        /// Whose it is; none is everybody's.
        project: Option<Uuid>,
        /// Where.
        place: Place,
        /// Who may use it, sealed.
        credential: String,
    },
    /// The backups that lie there are to be found.
    ImportOrdered {
        /// Whose they are from then on.
        project: Option<Uuid>,
    },
    /// The backups that lie there are known.
    Imported {
        /// The order's number.
        number: u64,
        /// When.
        at: DateTime<Utc>,
        /// What came of it.
        sum: Import,
    },
    /// The runner gave up until a person decides.
    Parked {
        /// The order's number.
        number: u64,
        /// What stood in the way.
        reason: String,
    },
    /// It was found not to be usable.
    Refused {
        /// The order's number.
        number: u64,
        /// Why.
        reason: String,
    },
    /// No backups are made there any more.
    Retired {},
    /// A parked order goes on.
    RetryOrdered {},
    /// It is to be found out whether it can be used.
    VerifyOrdered {
        /// Another credential than the one in use, sealed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        candidate: Option<String>,
    },
    /// It was found to be usable.
    Verified {
        /// The order's number.
        number: u64,
        /// When.
        at: DateTime<Utc>,
    },
}

/// Where backups lie.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BackupStore {
    /// Its name; empty while it does not exist.
    pub name: String,
    /// Whose it is; none is everybody's.
    pub project: Option<Uuid>,
    /// Where it is.
    pub place: Place,
    /// Who may use it, sealed.
    pub credential: String,
    /// When it was last found to be usable; none before it was.
    #[serde(default)]
    pub verified_at: Option<DateTime<Utc>>,
    /// Why it was last found not to be; none while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Its last collection, and when that was.
    #[serde(default)]
    pub last_collection: Option<(DateTime<Utc>, Collection)>,
    /// Its last import, and when that was.
    #[serde(default)]
    pub last_import: Option<(DateTime<Utc>, Import)>,
    /// Whether it is used no more.
    #[serde(default)]
    pub retired: bool,
    /// What is wanted of it.
    pub orders: Orders<Order>,
}

static VERBS: &[Verb] = &[
    Verb::admin("abandon", "Gives up the parked order."),
    Verb::operator("collect", "Removes the chunks that no backup needs any more."),
    Verb::system("confirm", "Reports that it can be used."),
    Verb::system("confirm-collection", "Reports what a collection came to."),
    Verb::system("confirm-import", "Reports what an import came to."),
    Verb::admin("create", "Says where backups lie, and who may use that place.").creating(),
    Verb::admin("import", "Finds backups that another installation has left there."),
    Verb::system("park", "Reports that an order keeps failing."),
    Verb::system("refuse", "Reports that it cannot be used."),
    Verb::admin("retire", "Makes no backups there any more; there are none left."),
    Verb::admin("retry", "Goes on with the parked order."),
    Verb::admin("update-credential", "Uses another access key, once it works."),
    Verb::operator("verify", "Finds out whether it can be used."),
];

impl BackupStore {
    /// Whether backups can be made there and restored from there.
    ///
    /// # Errors
    /// `wrong-state`: it was not verified, was refused, or is retired.
    pub fn ensure_usable(&self) -> Result<(), Refusal> {
        match self {
            Self { retired: false, verified_at: Some(_), refused: None, .. } => Ok(()),
            Self { refused: Some(why), retired: false, .. } => {
                let detail = format!("backup store {} was refused: {why}", self.name);
                Err(Refusal::new(&codes::WRONG_STATE, detail))
            }
            _ => {
                let (name, is) = (&self.name, Decider::status(self));
                Err(Refusal::new(&codes::WRONG_STATE, format!("backup store {name} is {is}")))
            }
        }
    }

    /// Whether it is to be collected now without anybody asking.
    pub fn is_due(&self, now: DateTime<Utc>) -> bool {
        let Some(verified) = self.verified_at else { return false };
        let last = self.last_collection.as_ref().map_or(verified, |(at, _)| *at);
        !self.retired && self.orders.out.is_none() && now - last >= COLLECT_AFTER
    }

    fn free(&self, verb: &str) -> Result<(), Refusal> {
        if self.name.is_empty() {
            return Err(Refusal::new(&codes::NOT_FOUND, "there is no such backup store"));
        }
        if self.retired {
            return Err(Refusal::wrong_state(verb, "retired"));
        }
        self.orders.ensure_free()
    }

    /// Whether the order that is out has this number and is of this sort.
    fn is_out(&self, number: u64, is: impl Fn(&Order) -> bool) -> bool {
        self.orders.out.as_ref().is_some_and(|out| out.number == number && is(&out.order))
    }
}

impl Decider for BackupStore {
    const KIND: &'static str = "backup-store";
    const PLURAL: &'static str = "backup-stores";
    const SUMMARY: &'static str = "A place in an object store where backups of disks lie.";
    type Command = Command;
    type Event = Event;
    type Order = Order;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command, stamp: &Stamp) -> Result<Vec<Event>, Refusal> {
        let at = stamp.now;
        Ok(match command {
            Command::Abandon {} => {
                self.orders.ensure_parked()?;
                vec![Event::Abandoned {}]
            }
            Command::Collect {} => {
                self.free("collect")?;
                self.ensure_usable()?;
                vec![Event::CollectionOrdered {}]
            }
            Command::Confirm { number }
                if self.is_out(number, |order| matches!(order, Order::Verify { .. })) =>
            {
                vec![Event::Verified { number, at }]
            }
            Command::ConfirmCollection { number, sum }
                if self.is_out(number, |order| *order == Order::Collect {}) =>
            {
                vec![Event::Collected { number, at, sum }]
            }
            Command::ConfirmImport { number, sum }
                if self.is_out(number, |order| matches!(order, Order::Import { .. })) =>
            {
                vec![Event::Imported { number, at, sum }]
            }
            Command::Create { .. } if !self.name.is_empty() => {
                return Err(Refusal::new(&codes::ALREADY_EXISTS, "the backup store exists"));
            }
            Command::Create { name, project, place, credential } => {
                check_name(&name)?;
                place.check()?;
                vec![
                    Event::Created { name, project, place, credential },
                    Event::VerifyOrdered { candidate: None },
                ]
            }
            Command::Import { project } => {
                self.free("import")?;
                self.ensure_usable()?;
                let project = project.or(self.project);
                if self.project.is_some() && project != self.project {
                    return Err(no("project: the store is of another project"));
                }
                vec![Event::ImportOrdered { project }]
            }
            Command::Park { number, reason } if self.orders.is_worked_on(number) => {
                vec![Event::Parked { number, reason }]
            }
            Command::Refuse { number, mut reason }
                if self.is_out(number, |order| matches!(order, Order::Verify { .. })) =>
            {
                let end = reason.char_indices().nth(REASON_CHARS_MAX).map(|(at, _)| at);
                reason.truncate(end.unwrap_or(reason.len()));
                vec![Event::Refused { number, reason }]
            }
            Command::Retire {} if self.retired => vec![],
            Command::Retire {} => {
                self.free("retire")?;
                vec![Event::Retired {}]
            }
            Command::Retry {} => {
                self.orders.ensure_parked()?;
                vec![Event::RetryOrdered {}]
            }
            Command::UpdateCredential { credential } => {
                self.free("update-credential")?;
                vec![Event::VerifyOrdered { candidate: Some(credential) }]
            }
            Command::Verify {} => {
                self.free("verify")?;
                vec![Event::VerifyOrdered { candidate: None }]
            }
            // A report about an order that is settled already says nothing new.
            Command::Confirm { .. }
            | Command::ConfirmCollection { .. }
            | Command::ConfirmImport { .. }
            | Command::Park { .. }
            | Command::Refuse { .. } => vec![],
        })
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::Abandoned {} => self.orders.settle(),
            Event::Collected { at, sum, .. } => {
                self.last_collection = Some((at, sum));
                self.orders.settle();
            }
            Event::CollectionOrdered {} => self.orders.issue(Order::Collect {}),
            Event::Created { name, project, place, credential } => {
                self = Self { name, project, place, credential, ..Self::default() };
            }
            Event::ImportOrdered { project } => self.orders.issue(Order::Import { project }),
            Event::Imported { at, sum, .. } => {
                self.last_import = Some((at, sum));
                self.orders.settle();
            }
            Event::Parked { reason, .. } => self.orders.park(reason),
            Event::Refused { reason, .. } => {
                // The credential in use was not asked: it is as good as it was.
                if self.candidate().is_none() {
                    self.refused = Some(reason);
                }
                self.orders.settle();
            }
            Event::Retired {} => self.retired = true,
            Event::RetryOrdered {} => self.orders.retry(),
            Event::VerifyOrdered { candidate } => self.orders.issue(Order::Verify { candidate }),
            Event::Verified { at, .. } => {
                if let Some(candidate) = self.candidate() {
                    self.credential = candidate;
                }
                self.verified_at = Some(at);
                self.refused = None;
                self.orders.settle();
            }
        }
        self
    }

    fn order(&self) -> Option<Outstanding<Order>> {
        self.orders.out.clone()
    }

    fn status(&self) -> &'static str {
        match &self.orders.out {
            _ if self.name.is_empty() => "absent",
            _ if self.retired => "retired",
            Some(Outstanding { parked: Some(_), .. }) => "parked",
            Some(Outstanding { order: Order::Collect {}, .. }) => "collecting",
            Some(Outstanding { order: Order::Import { .. }, .. }) => "importing",
            Some(Outstanding { order: Order::Verify { .. }, .. }) => "verifying",
            None if self.refused.is_some() || self.verified_at.is_none() => "refused",
            None => "ready",
        }
    }

    fn facets(&self) -> Facets {
        Facets {
            name: Some(self.name.clone()),
            project: self.project,
            region: (!self.place.region.is_empty()).then(|| self.place.region.clone()),
            gone: self.retired,
            ..Facets::default()
        }
    }
}

impl BackupStore {
    fn candidate(&self) -> Option<String> {
        match self.orders.out.as_ref().map(|out| &out.order) {
            Some(Order::Verify { candidate }) => candidate.clone(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
