//! Huge pages that somebody else on the host has: the kernel says how many are taken, and what our servers have of
//! them is known.

use std::collections::BTreeMap;

use adapters_libvirt::{Affects, Code, description::Description};
use commands::ports::DriverFault;
use domain::compute::placement::Cell;

use super::{Inner, fault::libvirt, wanted};

/// Huge pages, by cell and size in KiB.
pub(super) type Taken = BTreeMap<(u32, u32), u64>;

impl Inner {
    /// The cells of the host, with what others than our servers have of their pages. Servers that begin have not all
    /// of theirs yet: others seem to have fewer then, until the next look.
    pub(super) async fn without_others(
        &self,
        mut cells: Vec<Cell>,
        taken: &Taken,
    ) -> Result<Vec<Cell>, DriverFault> {
        if taken.is_empty() {
            return Ok(cells);
        }
        let adopted = self.records.adopted().await?;
        let wire = self.wire.get().await?;
        let mut ours = Vec::new();
        for domain in wire.domains().await.map_err(libvirt)? {
            let is_ours = wanted::server_of(&domain.name, domain.uuid).is_some()
                || adopted.contains(&domain.uuid);
            if !is_ours || domain.id.is_none() {
                continue;
            }
            match wire.xml(&domain, Affects::Live).await {
                Ok(xml) => ours.extend(Description::read(&xml)),
                // It ended meanwhile.
                Err(fault) if fault.is(Code::NO_DOMAIN) || fault.is(Code::OPERATION_INVALID) => {}
                Err(fault) => return Err(libvirt(fault)),
            }
        }
        leave_to_others(&mut cells, taken, &ours);
        Ok(cells)
    }
}

/// Of what is taken, what these machines have not is others'.
fn leave_to_others(cells: &mut [Cell], taken: &Taken, ours: &[Description]) {
    let only = match cells {
        [only] => Some(only.id),
        _ => None,
    };
    let mut own = Taken::new();
    for machine in ours {
        let Some(size_kib) = machine.page_kib.and_then(|kib| u32::try_from(kib).ok()) else {
            continue;
        };
        let mut add = |cell: Option<u32>, memory_kib: u64| {
            if let Some(cell) = cell.or(only) {
                let pages = memory_kib.checked_div(size_kib.into()).unwrap_or(0);
                *own.entry((cell, size_kib)).or_default() += pages;
            }
        };
        match &machine.cells[..] {
            [] => add(None, machine.memory_kib),
            cells => cells.iter().for_each(|cell| add(cell.host_cell, cell.memory_kib)),
        }
    }
    for cell in cells {
        for pages in &mut cell.pages {
            let at = (cell.id, pages.size_kib);
            let of = |all: &Taken| all.get(&at).copied().unwrap_or(0);
            pages.others = of(taken).saturating_sub(of(&own)).min(pages.count);
        }
    }
}

#[cfg(test)]
mod tests {
    use adapters_libvirt::description::GuestCell;
    use domain::compute::placement::Pages;
    use uuid::Uuid;

    use super::*;

    fn cell(id: u32) -> Cell {
        let pages = |size_kib, count| Pages { size_kib, count, others: 0 };
        serde_json::from_value(serde_json::json!({
            "id": id, "memory_mib": 8_192, "pages": [pages(2_048, 512), pages(1 << 20, 2)],
        }))
        .unwrap()
    }

    fn machine(cells: &[(Option<u32>, u64)]) -> Description {
        let memory: u64 = cells.iter().map(|(_, kib)| kib).sum();
        let mut machine = Description::new("sk", Uuid::nil(), memory, 1);
        machine.page_kib = Some(2_048);
        let bound = cells.iter().filter(|(cell, _)| cell.is_some());
        let cell = |(host_cell, memory_kib): &(Option<u32>, u64)| GuestCell {
            vcpus: vec![],
            memory_kib: *memory_kib,
            host_cell: *host_cell,
        };
        machine.cells = bound.map(cell).collect();
        machine
    }

    fn others(cells: u32, taken: &[((u32, u32), u64)], ours: &[Description]) -> Vec<u64> {
        let mut cells: Vec<_> = (0..cells).map(cell).collect();
        leave_to_others(&mut cells, &taken.iter().copied().collect(), ours);
        cells.iter().flat_map(|cell| &cell.pages).map(|pages| pages.others).collect()
    }

    #[test]
    fn what_is_taken_and_not_by_our_servers_is_others() {
        let (small, large) = (2_048, 1 << 20);
        let taken = [((0, small), 100), ((1, small), 60), ((1, large), 1)];
        assert_eq!(others(2, &taken, &[]), [100, 0, 60, 1]);
        // 96 MiB in cell 0 and 64 MiB in cell 1 are 48 and 32 pages.
        let ours = machine(&[(Some(0), 96 << 10), (Some(1), 64 << 10)]);
        assert_eq!(others(2, &taken, std::slice::from_ref(&ours)), [52, 0, 28, 1]);
        // One that begins, and has fewer yet than it is to have.
        assert_eq!(others(2, &[((0, small), 10)], &[ours]), [0, 0, 0, 0]);
        // Its pages are where the only cell is.
        let anywhere = machine(&[(None, 96 << 10)]);
        assert_eq!(others(1, &taken[..1], std::slice::from_ref(&anywhere)), [52, 0]);
        let mut usual = anywhere;
        usual.page_kib = None;
        assert_eq!(others(1, &taken[..1], &[usual]), [100, 0]);
        assert_eq!(others(1, &[((0, small), 1_000)], &[]), [512, 0], "no more than there are");
    }
}
