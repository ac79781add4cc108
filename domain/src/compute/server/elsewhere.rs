//! What a server asks of another host, and what keeps it on its own.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::home::{Home, Launch};
use crate::compute::placement::{HostId, Numa, Request};

/// What a host reaches that takes servers while they run, and copies of disks.
pub const LIVE: &str = "live-migration";
/// What is said where another host has no such cells as the guest sees.
pub(super) const OTHER_CELLS: &str = "it runs, and would be cut over other cells there than its guest \
                                      sees: stop it first";

/// Something that keeps a server on its host: a word for programs, and what to do.
pub type Tie = (&'static str, String);

impl Home {
    /// Its disks that are on its host alone.
    pub fn local_disks(&self) -> BTreeSet<Uuid> {
        let disks = self.parts.disks.iter().filter(|disk| disk.storage.is_none());
        disks.map(|disk| disk.id).collect()
    }

    /// What is asked of every other host for it, as it was when it was launched; of one alone where that
    /// is named. One that runs lies in as many cells there as it does here.
    pub fn elsewhere(&self, to: Option<HostId>, live: bool) -> Request {
        let mut launch = Launch::of(&self.name, self.spec.clone());
        launch.wishes = self.wishes.clone();
        launch.wishes.except.insert(self.placement.host);
        launch.wishes.labels.extend(self.parts.reaches());
        if live || !self.local_disks().is_empty() {
            launch.wishes.labels.insert(LIVE.to_owned());
        }
        if let Some(to) = to {
            launch.wishes.only = [to].into();
            launch.wishes.except = [self.placement.host].into();
        }
        let mut request = launch.request(self.placement.holding.server);
        // Pages without cells lie where they are had.
        if live && !(request.numa == Numa::None && request.page_kib.is_some()) {
            let cells = self.placement.holding.cells.len() as u32;
            if cells == 0 {
                request.numa = Numa::None;
            } else {
                request.numa = Numa::Strict;
                (request.cells_min, request.cells_max) = (cells, cells);
            }
        }
        request
    }

    /// What keeps it on its host, whatever others have room for.
    pub fn tied(&self, live: bool) -> Vec<Tie> {
        let mut found = Vec::new();
        if self.adopted.is_some() {
            let detail = "it was adopted: its definition and its disks are on this host alone";
            found.push(("adopted", detail.to_owned()));
        }
        let devices = self.placement.holding.devices.len();
        if live && devices > 0 {
            let detail = format!("it has {devices} devices of this host for itself: stop it first");
            found.push(("devices", detail));
        }
        if live && self.may_have_grown {
            let detail =
                "some of a size that was given up may have been added to it: stop it first";
            found.push(("may-have-grown", detail.to_owned()));
        }
        found
    }

    /// What is lost with its host.
    pub(super) fn stranded(&self) -> Vec<Tie> {
        match self.local_disks().len() {
            0 => Vec::new(),
            disks => vec![("local-disks", format!("{disks} of its disks are on this host alone"))],
        }
    }
}
