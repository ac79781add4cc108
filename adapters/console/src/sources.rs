//! Machines that others run, as people read them.

use std::io::{self, Write};

use comfy_table::Cell;
use serde_json::Value;

use crate::{
    columns::plain,
    costs::{close, items, right, text},
    format::{bare, heading},
    hosts::in_the_way,
    style::Style,
};

/// The machines of an account that can be moved to hosts of ours, and what is in the way of the others.
///
/// # Errors
/// What the output says.
pub fn machines(out: &mut dyn Write, answer: &Value, style: Style) -> io::Result<()> {
    let all = items(answer, "items");
    let name = style.bold(text(answer, "name"));
    if all.is_empty() {
        return writeln!(out, "{name} has no machines that could be moved");
    }
    let mut table = bare(style);
    let headings = ["machine", "name", "power", "vcpus", "memory", "disks", "what is in the way"];
    table.set_header(headings.map(heading));
    for one in all {
        let is = &one["machine"];
        let bytes = items(is, "disks").iter().filter_map(|disk| disk["size_bytes"].as_u64());
        let gib = bytes.sum::<u64>().div_ceil(1 << 30);
        table.add_row(vec![
            Cell::new(format!("{}\ndigest {}", text(is, "id"), text(one, "digest"))),
            Cell::new(text(is, "name")),
            Cell::new(text(is, "power")),
            right(plain(&is["vcpus"])),
            right(format!("{} MiB", plain(&is["memory_mib"]))),
            right(format!("{}, {gib} GiB", items(is, "disks").len())),
            Cell::new(in_the_way(one)),
        ]);
    }
    close(&mut table);
    writeln!(out, "{table}")?;
    let counts = [plain(&answer["movable"]), plain(&answer["others"])];
    writeln!(out, "{name}: {} can be moved, {} cannot", counts[0], counts[1])
}
