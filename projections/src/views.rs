//! LIST 2: every view, and the lenses over them.

use crate::{
    inventory::Inventory,
    lenses,
    sync_runs::{Freshness, SyncRuns},
    view::{Lens, View},
};

/// Every view, sorted by name.
pub static VIEWS: &[&dyn View] = &[
    &Freshness, &Inventory,
    &SyncRuns,
    // &CostByProject,   a new view: its file, its `mod` line, and a line like this
];

/// Every lens, sorted by name.
pub static LENSES: &[Lens] = &[lenses::MAPPINGS, lenses::ORDERS];
