//! Single things, for people: a resource, what a command would do, what came of it, events, a diff.

mod change;
mod events;
mod plan;
mod resource;

pub use change::{changes, value_lines};
pub use events::{event_line, history, progress, why};
pub use plan::{outcome, plan};
pub use resource::{drift, resource};

use comfy_table::Table;

use crate::{format, style::Style};

/// A table with headings and rows of text.
pub fn grid(headings: &[&str], rows: Vec<Vec<String>>, style: Style) -> Table {
    let mut table = format::bare(style);
    table.set_header(headings.iter().map(|text| format::heading(text)));
    for row in rows {
        table.add_row(row);
    }
    let last = headings.len().saturating_sub(1);
    for (place, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if place == last { 0 } else { 2 }));
    }
    table
}

/// A table, moved to the right.
pub fn indent(text: &str, by: usize) -> String {
    text.lines()
        .map(|line| format!("{}{}", " ".repeat(by), line.trim_end()))
        .collect::<Vec<_>>()
        .join("\n")
}
