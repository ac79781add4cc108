//! Where money can be saved, by what is known: what each hint says, and when it holds.
//!
//! A hint is no fact and is kept nowhere: it is worked out again whenever it is asked for, as of any
//! moment. Nothing here reads a clock: the moment is given.

use std::collections::BTreeMap;

use chrono::{DateTime, Days, NaiveDate, Utc};
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::{
    amount::{Amount, BillingMonth, Currency},
    commitment::Commitment,
    line::Line,
    ratio::whole,
    sizing::Measured,
};
use crate::compute::{
    disk::{DiskState, SeenDisk},
    server::{Machine, Power},
};

/// What sort of hint it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// A commitment's term is over soon.
    CommitmentEnding,
    /// A commitment is paid for and not used.
    CommitmentUnused,
    /// A server runs and does nothing.
    IdleServer,
    /// A snapshot is kept for long.
    OldSnapshot,
    /// A server is larger than it needs to be.
    OversizedServer,
    /// A server is stopped and costs all the same.
    StoppedServer,
    /// A disk is attached to nothing.
    UnattachedDisk,
    /// A public address is held and not used.
    UnusedAddress,
}

impl Code {
    /// As in answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::CommitmentEnding => "commitment-ending",
            Self::CommitmentUnused => "commitment-unused",
            Self::IdleServer => "idle-server",
            Self::OldSnapshot => "old-snapshot",
            Self::OversizedServer => "oversized-server",
            Self::StoppedServer => "stopped-server",
            Self::UnattachedDisk => "unattached-disk",
            Self::UnusedAddress => "unused-address",
        }
    }

    /// What one can do.
    pub fn advice(self) -> &'static str {
        match self {
            Self::CommitmentEnding => {
                "Renew it, or let it end: what it covers costs the price on demand afterwards."
            }
            Self::CommitmentUnused => {
                "Move use under it, exchange it, or buy less when its term is over."
            }
            Self::IdleServer => "Stop it, or delete it, if nobody needs it.",
            Self::OldSnapshot => "Delete it, or move it to an archive, if nobody needs it.",
            Self::OversizedServer => {
                "Change it to the shape that is suggested, when its peaks can wait a little."
            }
            Self::StoppedServer => {
                "Delete it with its disks, or keep a snapshot in their place, if nobody starts it."
            }
            Self::UnattachedDisk => "Delete it, or keep a snapshot in its place.",
            Self::UnusedAddress => "Release it.",
        }
    }
}

/// From when on something is worth a hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Days before a commitment's end.
    pub commitment_days: u32,
    /// MiB of network a day, in and out, below which a server is idle.
    pub idle_network_mib: u32,
    /// Percent of its processors below which a server is idle.
    pub idle_percent: u32,
    /// Full days back that are looked at of what was measured.
    pub measured_days: u32,
    /// Percent of the time of these days that must be measured.
    pub measured_percent: u32,
    /// Percent of a smaller shape that a server must stay below.
    pub oversized_percent: u32,
    /// Days that a snapshot is old.
    pub snapshot_days: u32,
    /// Days that a server is stopped.
    pub stopped_days: u32,
    /// Days that a disk is attached to nothing.
    pub unattached_days: u32,
    /// Percent of a commitment's month that are not used.
    pub unused_percent: u32,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            commitment_days: 60,
            idle_network_mib: 100,
            idle_percent: 5,
            measured_days: 14,
            measured_percent: 80,
            oversized_percent: 80,
            snapshot_days: 90,
            stopped_days: 7,
            unattached_days: 7,
            unused_percent: 10,
        }
    }
}

/// An event that a hint rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Since {
    /// Its position in the log.
    pub position: u64,
    /// Its type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// When it was recorded.
    pub recorded_at: DateTime<Utc>,
}

/// What something costs in a month, and who says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Monthly {
    /// So much.
    pub amount: Amount,
    /// In this.
    pub currency: Currency,
    /// Which month.
    pub month: BillingMonth,
    /// `bill`, `rates`, `commitment`, or `estimate`: a part of one of the first two.
    pub by: &'static str,
}

/// What a hint rests on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// The event since which it is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Since>,
    /// How many lines of which segments say what it costs.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub segments: BTreeMap<String, u64>,
    /// What was measured, and which events say so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
    /// How the money was worked out, when it is not what the resource costs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub money: String,
    /// The threshold that is passed, and by what.
    pub threshold: String,
}

/// A shape that is enough.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Suggestion {
    /// The provider's name of it.
    pub shape: String,
    /// Its virtual processors.
    pub vcpus: u32,
    /// Its memory in GiB.
    pub memory_gib: Amount,
}

/// One hint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hint {
    /// What sort it is.
    pub code: Code,
    /// The kind of resource; empty for what only bills know.
    pub kind: &'static str,
    /// Our id of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// Its id in the cloud, or as bills have it.
    pub resource: String,
    /// What it is called.
    pub name: String,
    /// Who owns it.
    pub project: Option<Uuid>,
    /// What it costs in a month, by currency; nothing when nobody knows.
    pub monthly: Vec<Monthly>,
    /// What it rests on.
    pub evidence: Evidence,
    /// What one can do.
    pub advice: &'static str,
    /// The shape that is enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<Suggestion>,
}

/// Whether so many days have passed since then.
pub fn is_old(since: DateTime<Utc>, now: DateTime<Utc>, days: u32) -> bool {
    (now - since).num_days() >= i64::from(days)
}

/// Whether a disk is attached to nothing.
pub fn is_unattached(disk: &SeenDisk) -> bool {
    disk.state == DiskState::Available && disk.server.is_none()
}

/// Whether a server stands still.
pub fn is_stopped(machine: &Machine) -> bool {
    machine.power == Power::Stopped
}

fn says(line: &Line, words: &[&str]) -> bool {
    let texts = [&line.resource_type, &line.sku, &line.description];
    let more = ["x_UsageType", "lineItem/UsageType", "line_item_usage_type"];
    let more = more.iter().filter_map(|name| line.other.get(*name));
    texts.into_iter().chain(more).any(|text| {
        let text = text.to_lowercase();
        words.iter().all(|word| text.contains(word))
    })
}

/// Whether a line is of a snapshot's storage: no kind stands for one, so that the bill's words count.
pub fn is_of_snapshot(line: &Line) -> bool {
    !line.resource.is_empty() && says(line, &["snapshot"])
}

/// Whether a line is of an address that is held and not used, by the bill's words.
pub fn is_of_unused_address(line: &Line) -> bool {
    !line.resource.is_empty() && says(line, &["idle", "address"])
}

/// The days that are left of a commitment's term, when they are at most so many and one at least.
pub fn ends_within(commitment: &Commitment, today: NaiveDate, days: u32) -> Option<i64> {
    let left = (commitment.end() - today).num_days();
    (commitment.counts() && (1..=i64::from(days)).contains(&left)).then_some(left)
}

/// What of a commitment is not recognised yet on a day; none beyond what an amount holds.
pub fn remaining(commitment: &Commitment, today: NaiveDate) -> Option<Amount> {
    let (mut month, mut sum) = (BillingMonth::of(today), Amount::ZERO);
    // A term ends, and so do the months of it.
    while month.first() < commitment.end() + Days::new(1) {
        for part in commitment.recognised(month) {
            if part.day >= today {
                sum = sum.checked_add(part.amount)?;
            }
        }
        month = month.next();
    }
    Some(sum)
}

/// Whether so many percent of a whole are unused.
pub fn is_unused(unused: Amount, used: Amount, percent: u32) -> bool {
    let least = (whole(unused.0) + whole(used.0)) * whole(i128::from(percent));
    unused.0 > 0 && whole(unused.0) * whole(100) >= least
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn an_age_is_counted_in_whole_days_up_to_the_moment_that_is_given() {
        let since = time("2026-10-01T12:00:00Z");
        assert!(!is_old(since, time("2026-10-08T11:59:59Z"), 7));
        assert!(is_old(since, time("2026-10-08T12:00:00Z"), 7));
        assert!(is_old(since, since, 0));
    }

    #[test]
    fn a_bill_s_words_tell_snapshots_and_idle_addresses() {
        let month = "2026-10".parse().unwrap();
        let mut line = Line::new("1", month, Currency::try_from("USD".to_owned()).unwrap());
        line.description = "$0.05 per GB-Month of Snapshot data stored".into();
        assert!(!is_of_snapshot(&line), "of no resource");
        line.resource = "snap-1".into();
        assert!(is_of_snapshot(&line) && !is_of_unused_address(&line));
        line.description = "$0.005 per Idle public IPv4 address per hour".into();
        assert!(is_of_unused_address(&line) && !is_of_snapshot(&line));
        line.description = String::new();
        line.other.insert("x_UsageType".into(), "EUC1-EBS:SnapshotUsage".into());
        assert!(is_of_snapshot(&line));
    }

    #[test]
    fn a_commitment_is_badly_used_from_the_threshold_on() {
        let check = |unused, used, percent| is_unused(Amount(unused), Amount(used), percent);
        assert!(check(10, 90, 10) && !check(9, 91, 10) && !check(0, 100, 0));
        assert!(check(i128::MAX / 4, 0, 100));
    }
}
