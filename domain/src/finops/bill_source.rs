//! Where bills lie as files, and which of them were taken in.
//!
//! ```text
//!             define            pause
//!   absent ─────────► active ◄────────► paused
//!                      │  ▲    resume     │
//!                 pull │  │ finish-pull,  │ retire
//!                      ▼  │ fail-pull     ▼
//!                    pulling ─ retire ► retired
//! ```
//!
//! A pull looks at the files of a place in object storage and takes in what is new or has changed.
//! Files that belong together are a *delivery*: where an issuer writes a manifest of a month, the
//! files that it names; elsewhere each file. A delivery that has changed takes the place of what it
//! said before; a file that is gone takes nothing away, unless a manifest leaves it out. What was
//! taken is in the log file by file, so that a pull that was broken off goes on where it was.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{amount::BillingMonth, report::Schedule};
use crate::kernel::{
    Decider, Facets, Orders, Outstanding, Refusal, Stamp, Verb, canonical_bytes, codes, sha256,
};

/// Longest prefix, in bytes: the longest key that S3 has.
const PREFIX_BYTES_MAX: usize = 1_024;
/// Longest mapping, in bytes: as much as an import takes.
const MAPPING_BYTES_MAX: usize = 16_000;
/// Longest address of a store, in characters.
const ENDPOINT_CHARS_MAX: usize = 500;
/// Longest reason, in characters: as long as that of a bill's version.
const REASON_CHARS_MAX: usize = 500;
/// Most deliveries of one source: five years of daily files. All of them are in its state.
pub const DELIVERIES_MAX: usize = 2_000;
/// Most files of one delivery: they are in one event.
pub const FILES_MAX: usize = 1_000;

/// What becomes of lines that a bill has from elsewhere already, word for word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Repeated {
    /// The delivery is refused.
    #[default]
    Refuse,
    /// They are left out.
    Skip,
    /// They count.
    Count,
}

/// A file in object storage, as it was listed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its name in the bucket.
    pub key: String,
    /// How long it is.
    pub bytes: u64,
    /// What the store calls this content of it.
    pub etag: String,
}

/// What of a delivery is in one bill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Booked {
    /// `BillingAccountId`.
    pub billing_account: String,
    /// The month.
    #[schemars(with = "String")]
    pub month: BillingMonth,
    /// SHA-256 of the segment of its lines, in hexadecimal.
    pub segment: String,
    /// How many lines.
    pub lines: u64,
}

/// A delivery that was taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Taken {
    /// Its name: the source of its lines.
    pub delivery: String,
    /// Its files, and its manifest where it has one, by key.
    pub files: Vec<File>,
    /// SHA-256 of what was read, in hexadecimal.
    pub source_digest: String,
    /// What came of it, by bill.
    pub bills: Vec<Booked>,
    /// Lines that could not be booked.
    pub quarantined: u64,
}

/// A delivery that was not taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    /// Its name.
    pub delivery: String,
    /// Names the files that it had.
    pub fingerprint: String,
    /// Why, in a word that stays the same.
    pub code: String,
    /// Why, in full.
    pub reason: String,
}

/// What a pull came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sum {
    /// Bills' files that lie there.
    pub listed: u64,
    /// Deliveries that were taken in.
    pub taken: u64,
    /// Deliveries that were taken in before, as they are.
    pub unchanged: u64,
    /// Deliveries that were not taken in; those that were refused before as they are among them.
    #[serde(default)]
    pub refused: Vec<Refused>,
}

/// Names a set of files: another when one of them has changed, has come or has gone.
pub fn fingerprint(files: &[File]) -> String {
    let mut of: Vec<(&str, &str)> = files.iter().map(|one| (&*one.key, &*one.etag)).collect();
    of.sort_unstable();
    crate::log::hex(&sha256(&canonical_bytes(&of)))
}

/// Where the files lie and how they are read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BillPlace {
    /// The cloud account whose credential reads them; left out when the source has one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Uuid>,
    /// The bucket.
    pub bucket: String,
    /// What their keys begin with; everything in the bucket when it is left out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// The bucket's region; that of the credential when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Base URL of a store that speaks as S3 does; AWS's own when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// How the files are written: the name of a mapping, or one as JSON; told by their headings when
    /// it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapping: Option<String>,
    /// One line that cannot be booked refuses the whole delivery.
    #[serde(default)]
    pub strict: bool,
    /// What becomes of lines that a bill has from elsewhere.
    #[serde(default)]
    pub repeats: Repeated,
    /// When it is pulled by itself; never when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
}

impl BillPlace {
    /// Where its files' keys begin: what they are called beside others'.
    pub fn base(&self) -> String {
        match &self.endpoint {
            Some(endpoint) => format!("{}/{}", endpoint.trim_end_matches('/'), self.bucket),
            None => format!("s3://{}", self.bucket),
        }
    }

    /// As people write it.
    pub fn url(&self) -> String {
        format!("{}/{}", self.base(), self.prefix)
    }

    fn check(&self) -> Result<(), Refusal> {
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
        if !(3..=63).contains(&self.bucket.len())
            || !self.bucket.chars().all(word)
            || self.bucket.contains("..")
        {
            return Err(no("bucket: has 3 to 63 small letters, digits, hyphens and dots"));
        }
        if self.prefix.len() > PREFIX_BYTES_MAX || self.prefix.starts_with('/') {
            let what = format!("at most {PREFIX_BYTES_MAX} bytes and begins with no slash");
            return Err(no(format!("prefix: has {what}")));
        }
        let region = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.region.as_ref().is_some_and(|one| one.is_empty() || !one.chars().all(region)) {
            return Err(no("region: reads like eu-central-1"));
        }
        let url = |one: &String| {
            one.chars().count() <= ENDPOINT_CHARS_MAX
                && ["http://", "https://"].iter().any(|scheme| {
                    one.strip_prefix(scheme).is_some_and(|rest| {
                        !rest.is_empty() && !rest.contains(['?', '#', '@', ' '])
                    })
                })
        };
        if self.endpoint.as_ref().is_some_and(|one| !url(one)) {
            return Err(no("endpoint: reads like https://storage.example.com"));
        }
        if self.mapping.as_ref().is_some_and(|one| one.len() > MAPPING_BYTES_MAX) {
            return Err(no(format!("mapping: has at most {MAPPING_BYTES_MAX} bytes")));
        }
        self.schedule.iter().try_for_each(Schedule::check)
    }
}

fn no(detail: impl Into<String>) -> Refusal {
    Refusal::new(&codes::INVALID_FIELD, detail)
}

/// What a source can wait for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Order {
    /// Take in what is new or has changed.
    Pull {
        /// Why closed months get further versions.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
        /// Whether the schedule asks: what it was refused before, as it is, it leaves alone.
        scheduled: bool,
    },
}

/// A command of a bill source.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Say where bills lie.
    Define {
        /// What it is called, 1…100 characters; as before when it is left out.
        #[serde(default)]
        name: Option<String>,
        /// Where the files lie and how they are read.
        place: Box<BillPlace>,
        /// A credential of its own, as a cloud account of AWS has it: a file. It is sealed at once
        /// and never shown again; as before when it is left out.
        #[serde(default)]
        #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
        credential: Option<String>,
    },
    /// The store does not let us, or has no such bucket.
    FailPull {
        /// The order's number.
        number: u64,
        /// Why, in a word that stays the same.
        code: String,
        /// Why, in full.
        reason: String,
    },
    /// The pull is through.
    FinishPull {
        /// The order's number.
        number: u64,
        /// What it came to.
        sum: Sum,
    },
    /// The store could not be reached for too long.
    Park {
        /// The order's number.
        number: u64,
        /// What stood in the way.
        reason: String,
    },
    /// Pull no more until `resume`.
    Pause {},
    /// Take in what is new or has changed, now.
    Pull {
        /// Why closed months get further versions; without one they refuse what has changed.
        #[serde(default)]
        reason: String,
        /// When the schedule asked for it; left out by people.
        #[serde(default)]
        due: Option<DateTime<Utc>>,
    },
    /// Pull again.
    Resume {},
    /// Pull no more; what was taken in stays.
    Retire {},
    /// Say what was taken in.
    Take {
        /// The order's number.
        number: u64,
        /// The delivery.
        taken: Taken,
    },
}

/// A fact about a bill source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Event {
    /// Bills lie there.
    Defined {
        /// What it is called.
        name: String,
        /// Where the files lie and how they are read.
        place: Box<BillPlace>,
        /// Its own credential, sealed.
        credential: Option<String>,
        /// When: what was due before is not made up for.
        at: DateTime<Utc>,
    },
    /// It is pulled no more for now.
    Paused {},
    /// The pull came to nothing; what it had taken in stays.
    PullFailed {
        /// The order's number.
        number: u64,
        /// When.
        at: DateTime<Utc>,
        /// Why, in a word that stays the same: `denied`, `not-found`, `rejected`, `unreachable`,
        /// `too-many-files` or `unsupported`.
        code: String,
        /// Why, in full.
        reason: String,
    },
    /// The pull is through.
    PullFinished {
        /// The order's number.
        number: u64,
        /// When.
        at: DateTime<Utc>,
        /// What it came to.
        sum: Sum,
    },
    /// What is new or has changed is to be taken in.
    PullOrdered {
        /// Why closed months get further versions.
        reason: String,
        /// When the schedule asked for it; none when a person did.
        due: Option<DateTime<Utc>>,
    },
    /// It is pulled again.
    Resumed {},
    /// It is pulled no more.
    Retired {},
    /// A delivery was taken in.
    DeliveryTaken {
        /// The order's number.
        number: u64,
        /// The delivery.
        taken: Taken,
    },
}

/// What is known of a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Names its files as they were taken in.
    pub fingerprint: String,
    /// How many they were.
    pub files: u64,
    /// How many lines they had.
    pub lines: u64,
}

/// How the last pull ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastPull {
    /// Its number.
    pub number: u64,
    /// When.
    pub at: DateTime<Utc>,
    /// What it came to; none when it failed.
    pub sum: Option<Sum>,
    /// Why it failed, in a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// Why it failed, in full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Where bills lie as files.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BillSource {
    /// Its name; empty while it does not exist.
    pub name: String,
    /// Where the files lie and how they are read.
    pub place: BillPlace,
    /// Its own credential, sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// When it was defined last.
    pub at: DateTime<Utc>,
    /// Whether it is left alone.
    #[serde(default)]
    pub paused: bool,
    /// Whether it is pulled no more.
    #[serde(default)]
    pub retired: bool,
    /// The last time that the schedule asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<DateTime<Utc>>,
    /// What was taken in, by delivery.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub deliveries: BTreeMap<String, Known>,
    /// How the last pull ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_pull: Option<LastPull>,
    /// Orders.
    pub orders: Orders<Order>,
}

static VERBS: &[Verb] = &[
    Verb::admin("define", "Says where bills lie, who may read them, and when they are pulled.")
        .creating(),
    Verb::system("fail-pull", "Reports that the store does not let us, or has no such bucket."),
    Verb::system("finish-pull", "Reports what a pull came to."),
    Verb::system("park", "Reports that the store could not be reached for too long."),
    Verb::admin("pause", "Pulls no more until resume."),
    Verb::admin("pull", "Takes in what is new or has changed, now."),
    Verb::admin("resume", "Pulls again."),
    Verb::admin("retire", "Pulls no more; what was taken in stays."),
    Verb::system("take", "Reports a delivery that was taken in."),
];

impl BillSource {
    /// The source of a place that is pulled once: the same each time.
    pub fn once(bucket: &str, prefix: &str, endpoint: Option<&str>) -> Uuid {
        /// The namespace of such ids.
        const SPACE: Uuid = Uuid::from_u128(0x3f5d_8a10_6c4e_4d0b_8f1a_7e2b_90c6_51d7);
        let place = format!("{} s3://{bucket}/{prefix}", endpoint.unwrap_or_default());
        Uuid::new_v5(&SPACE, place.as_bytes())
    }

    /// When it has to be pulled now, if it has.
    pub fn due(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let idle = !self.retired && !self.paused && self.orders.out.is_none();
        let due = self.place.schedule.as_ref().filter(|_| idle)?.due(now);
        (due > self.at && self.due.is_none_or(|asked| asked < due)).then_some(due)
    }

    /// Whether a delivery of these files was taken in before.
    pub fn has(&self, delivery: &str, fingerprint: &str) -> bool {
        self.deliveries.get(delivery).is_some_and(|known| known.fingerprint == fingerprint)
    }

    /// Why a delivery of these files was refused by the last pull.
    pub fn refused(&self, delivery: &str, fingerprint: &str) -> Option<&Refused> {
        let refused = &self.last_pull.as_ref()?.sum.as_ref()?.refused;
        refused.iter().find(|one| one.delivery == delivery && one.fingerprint == fingerprint)
    }

    fn define(
        &self,
        name: Option<String>,
        place: Box<BillPlace>,
        credential: Option<String>,
        stamp: &Stamp,
    ) -> Result<Vec<Event>, Refusal> {
        let name = name.unwrap_or_else(|| self.name.clone());
        crate::tenancy::check_name(&name)?;
        place.check()?;
        let credential = match (&place.account, credential) {
            (Some(_), Some(_)) => {
                return Err(no("credential: is the account's, leave one of both out"));
            }
            (Some(_), None) => None,
            (None, Some(credential)) => Some(credential),
            (None, None) => match &self.credential {
                Some(credential) => Some(credential.clone()),
                None => return Err(no("credential: is needed, or place.account")),
            },
        };
        let same = (&self.name, &self.place, &self.credential) == (&name, &place, &credential);
        if same && !self.retired {
            return Ok(vec![]);
        }
        Ok(vec![Event::Defined { name, place, credential, at: stamp.now }])
    }

    fn pull(&self, reason: String, due: Option<DateTime<Utc>>) -> Result<Vec<Event>, Refusal> {
        if self.retired || self.paused {
            let what = format!("the bill source is {}", Decider::status(self));
            return Err(Refusal::new(&codes::WRONG_STATE, what));
        }
        if due.is_some() && self.due >= due {
            return Ok(vec![]);
        }
        if reason.chars().count() > REASON_CHARS_MAX {
            return Err(no(format!("reason: has at most {REASON_CHARS_MAX} characters")));
        }
        self.orders.ensure_free()?;
        Ok(vec![Event::PullOrdered { reason, due }])
    }
}

impl Decider for BillSource {
    const KIND: &'static str = "bill-source";
    const PLURAL: &'static str = "bill-sources";
    const SUMMARY: &'static str = "Where bills lie as files, and which of them were taken in.";
    type Command = Command;
    type Event = Event;
    type Order = Order;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command, stamp: &Stamp) -> Result<Vec<Event>, Refusal> {
        let at = stamp.now;
        Ok(match command {
            Command::Define { name, place, credential } => {
                return self.define(name, place, credential, stamp);
            }
            _ if self.name.is_empty() => {
                return Err(Refusal::new(&codes::NOT_FOUND, "there is no such bill source"));
            }
            Command::FailPull { number, code, reason } if self.orders.is_out(number) => {
                vec![Event::PullFailed { number, at, code, reason }]
            }
            Command::FinishPull { number, sum } if self.orders.is_out(number) => {
                vec![Event::PullFinished { number, at, sum }]
            }
            // The next pull is the schedule's, or a person's: there is nothing to wait for.
            Command::Park { number, reason } if self.orders.is_out(number) => {
                vec![Event::PullFailed { number, at, code: "unreachable".into(), reason }]
            }
            Command::Pause {} if self.paused || self.retired => vec![],
            Command::Pause {} => vec![Event::Paused {}],
            Command::Pull { reason, due } => return self.pull(reason, due),
            Command::Resume {} if self.paused => vec![Event::Resumed {}],
            Command::Retire {} if !self.retired => vec![Event::Retired {}],
            Command::Take { number, taken } if self.orders.is_out(number) => {
                if taken.files.len() > FILES_MAX {
                    return Err(no(format!("files: are at most {FILES_MAX}")));
                }
                let fingerprint = fingerprint(&taken.files);
                if self.has(&taken.delivery, &fingerprint) {
                    return Ok(vec![]);
                }
                vec![Event::DeliveryTaken { number, taken }]
            }
            // About an order that is not out any more, or news that are none.
            Command::FailPull { .. }
            | Command::FinishPull { .. }
            | Command::Park { .. }
            | Command::Resume {}
            | Command::Retire {}
            | Command::Take { .. } => vec![],
        })
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::Defined { name, place, credential, at } => {
                self.name = name;
                self.place = *place;
                self.credential = credential;
                self.at = at;
                self.retired = false;
            }
            Event::Paused {} => self.paused = true,
            Event::PullFailed { number, at, code, reason } => {
                self.orders.settle();
                let (failed, reason) = (Some(code), Some(reason));
                self.last_pull = Some(LastPull { number, at, sum: None, failed, reason });
            }
            Event::PullFinished { number, at, sum } => {
                self.orders.settle();
                let sum = Some(sum);
                self.last_pull = Some(LastPull { number, at, sum, failed: None, reason: None });
            }
            Event::PullOrdered { reason, due } => {
                self.orders.issue(Order::Pull { reason, scheduled: due.is_some() });
                self.due = due.or(self.due);
            }
            Event::Resumed {} => self.paused = false,
            Event::Retired {} => {
                self.orders.settle();
                self.retired = true;
            }
            Event::DeliveryTaken { taken, .. } => {
                let known = Known {
                    fingerprint: fingerprint(&taken.files),
                    files: taken.files.len() as u64,
                    lines: taken.bills.iter().map(|bill| bill.lines).sum(),
                };
                self.deliveries.insert(taken.delivery, known);
            }
        }
        self
    }

    fn order(&self) -> Option<Outstanding<Order>> {
        self.orders.out.clone().filter(|_| !self.paused)
    }

    fn status(&self) -> &'static str {
        match self {
            _ if self.name.is_empty() => "absent",
            _ if self.retired => "retired",
            _ if self.paused => "paused",
            _ if self.orders.out.is_some() => "pulling",
            _ => "active",
        }
    }

    fn facets(&self) -> Facets {
        Facets {
            name: Some(self.name.clone()),
            account: self.place.account,
            region: self.place.region.clone(),
            gone: self.retired,
            ..Facets::default()
        }
    }
}

#[cfg(test)]
mod tests;
