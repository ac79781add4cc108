//! What a move writes on a machine: that it has it, and how much of it is where.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// It is written into the machine's extra configuration, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The move that has the machine.
    #[serde(rename = "move")]
    pub(super) move_in: String,
    /// Whether the machine noted which parts of its disks change before the move.
    #[serde(default)]
    pub(super) was_tracking: bool,
    /// The disks that have of it what `changes` says; none before all of it was copied once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) filling: Option<Uuid>,
    /// The moment of each disk, by its number, that all of it was copied of.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) changes: Changes,
    /// Whether it was stopped for the move, and all of it was copied.
    #[serde(default)]
    pub(super) is_complete: bool,
}

/// Moments of disks, as the vCenter calls them, by the disk's number.
pub(super) type Changes = BTreeMap<u32, String>;

impl Mark {
    /// None for what reads as no mark.
    pub(super) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub(super) fn write(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The moments up to which these disks are filled; none when other ones were.
    pub(super) fn filled(&self, filling: Option<Uuid>) -> Option<&Changes> {
        (filling.is_some() && self.filling == filling).then_some(&self.changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_says_which_disks_are_filled_up_to_when() {
        let filling = Some(Uuid::from_u128(7));
        let changes: Changes = [(2000, "52 d1/4".to_owned())].into();
        let mark = Mark { move_in: "m".into(), filling, changes, ..Mark::default() };
        let read = Mark::read(&mark.write()).unwrap();
        assert_eq!(read, mark);
        assert_eq!(read.filled(filling), Some(&mark.changes));
        assert_eq!(read.filled(Some(Uuid::from_u128(8))), None);
        assert_eq!(Mark { filling: None, ..read }.filled(None), None);
        assert_eq!(Mark::read("somebody's"), None);
    }
}
