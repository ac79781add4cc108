//! Output formats. Tables are for people: ages, colours, no empty columns, as wide as the terminal.
//! The others are for programs: everything there is, times exact.

use std::io::Write;

use chrono::{DateTime, Utc};
use clap::ValueEnum;
use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, presets};
use serde_json::Value;

use crate::{
    columns::{Column, Shape, of},
    style::Style,
};

/// How rows are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// Columns for people, all of them.
    Wide,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
    /// RFC 4180 with a heading.
    Csv,
    /// KIND/ID, one a line: what other commands take.
    Name,
}

impl Format {
    /// Whether a person reads it.
    pub fn is_for_people(self) -> bool {
        matches!(self, Self::Table | Self::Wide)
    }
}

/// Writes rows of a kind or view (by its plural name).
///
/// # Errors
/// What the output says.
pub fn rows(
    out: &mut dyn Write,
    format: Format,
    plural: &str,
    rows: &[Value],
    now: DateTime<Utc>,
    style: Style,
) -> std::io::Result<()> {
    match format {
        Format::Json => json(out, &Value::Array(rows.to_vec())),
        Format::Yaml => yaml(out, &Value::Array(rows.to_vec())),
        Format::Csv => csv(out, &of(plural), rows),
        Format::Name => {
            for row in rows {
                writeln!(out, "{}", name(plural, row))?;
            }
            Ok(())
        }
        Format::Table | Format::Wide => {
            let columns: Vec<Column> =
                of(plural).into_iter().filter(|one| format == Format::Wide || !one.wide).collect();
            writeln!(out, "{}", table(&columns, rows, now, style).trim_fmt())
        }
    }
}

/// Writes one document; a table is the caller's to make.
///
/// # Errors
/// What the output says.
pub fn document(out: &mut dyn Write, format: Format, value: &Value) -> std::io::Result<()> {
    match format {
        Format::Yaml => yaml(out, value),
        _ => json(out, value),
    }
}

fn json(out: &mut dyn Write, value: &Value) -> std::io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

fn yaml(out: &mut dyn Write, value: &Value) -> std::io::Result<()> {
    let text = serde_norway::to_string(value).map_err(std::io::Error::other)?;
    out.write_all(text.as_bytes())
}

fn csv(out: &mut dyn Write, columns: &[Column], rows: &[Value]) -> std::io::Result<()> {
    let mut writer = csv::Writer::from_writer(out);
    writer.write_record(
        columns.iter().map(|column| column.name.replace(' ', "_").replace('%', "percent")),
    )?;
    for row in rows {
        writer.write_record(columns.iter().map(|column| column.text(row, None)))?;
    }
    writer.flush()
}

/// `KIND/ID`.
pub fn name(plural: &str, row: &Value) -> String {
    let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
    match plural {
        "events" => row["position"].to_string(),
        "freshness" | "sync-runs" => {
            let part = |name: &str| crate::columns::plain(&row[name]);
            let last = if plural == "freshness" { "kind" } else { "run" };
            [part("account"), part("region"), part(last)]
                .into_iter()
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
                .join("/")
        }
        _ => format!("{}/{}", text("kind"), text("id")),
    }
}

/// An empty table in the house's look.
pub fn bare(style: Style) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if !style.is_on() {
        table.force_no_tty();
        // Still as wide as the terminal, only without colours.
        if let Some(width) = width() {
            table.set_width(width);
        }
    }
    table
}

/// Columns of the terminal behind standard output; none when it is not one.
pub fn width() -> Option<u16> {
    Table::new().width()
}

/// A heading.
pub fn heading(text: &str) -> Cell {
    Cell::new(text.to_uppercase()).add_attribute(Attribute::Bold)
}

/// Some rows as a table; columns that are empty in every row are left out.
pub fn table(columns: &[Column], rows: &[Value], now: DateTime<Utc>, style: Style) -> Table {
    let texts: Vec<Vec<String>> = rows
        .iter()
        .map(|row| columns.iter().map(|column| column.text(row, Some(now))).collect())
        .collect();
    let used: Vec<usize> = (0..columns.len())
        .filter(|index| texts.iter().any(|row: &Vec<String>| !row[*index].is_empty()))
        .collect();
    let mut table = bare(style);
    table.set_header(used.iter().map(|index| heading(columns[*index].name)));
    for (row, texts) in rows.iter().zip(texts) {
        let cells = used.iter().map(|index| cell(&columns[*index], row, &texts[*index]));
        table.add_row(cells);
    }
    for (place, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if place + 1 == used.len() { 0 } else { 2 }));
    }
    table
}

fn cell(column: &Column, row: &Value, text: &str) -> Cell {
    let cell = Cell::new(text);
    match column.shape {
        Shape::Status => match colour(text) {
            Some(colour) => cell.fg(colour),
            None => cell,
        },
        Shape::Count => cell.set_alignment(CellAlignment::Right),
        _ if crate::columns::at(row, column.path).is_number() && column.shape == Shape::Text => {
            cell.set_alignment(CellAlignment::Right)
        }
        _ => cell,
    }
}

/// Green is well, yellow is on its way, red needs a person.
pub fn colour(status: &str) -> Option<Color> {
    match status {
        "active" | "attached" | "available" | "connected" | "in-use" | "issued" | "linked"
        | "running" | "true" => Some(Color::Green),
        "applying" | "connecting" | "creating" | "declared" | "pending" | "rebooting"
        | "retiring" | "starting" | "stopping" | "syncing" | "verifying" | "muted" => {
            Some(Color::Yellow)
        }
        "denied" | "drifted" | "false" | "impaired" | "parked" | "vanished" => Some(Color::Red),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rows_of(format: Format, rows: &[Value]) -> String {
        let mut out = Vec::new();
        let now = "2026-03-01T12:05:00Z".parse().unwrap();
        super::rows(&mut out, format, "servers", rows, now, Style::PLAIN).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn two() -> Vec<Value> {
        let row = |name: &str, id: u8, status: &str| {
            json!({
                "kind": "server", "id": format!("0199-{id}"), "name": name, "status": status,
                "external_id": format!("i-{id}"), "region": "eu-1", "revision": id,
                "updated_at": 1_772_366_400_000_000_i64, "updated_by": "token:ci",
                "state": {"observation": {"seen": {"shape": "small", "addresses": ["10.0.0.4/32"]}}},
            })
        };
        vec![row("web", 1, "running"), row("a, \"b\"", 2, "stopped")]
    }

    #[test]
    fn a_table_has_headings_ages_and_no_empty_columns() {
        assert_eq!(
            rows_of(Format::Table, &two()),
            "NAME    STATUS   REGION  EXTERNAL ID  SHAPE  UPDATED\n\
             web     running  eu-1    i-1          small  5m ago\n\
             a, \"b\"  stopped  eu-1    i-2          small  5m ago\n"
        );
    }

    #[test]
    fn csv_has_every_column_and_quotes_what_needs_it() {
        assert_eq!(
            rows_of(Format::Csv, &two()),
            "name,status,region,zone,external_id,shape,cpu_p95_percent,memory_peak_percent,measured,\
             addresses,parent,account,project,revision,updated,by,id\n\
             web,running,eu-1,,i-1,small,,,,10.0.0.4/32,,,,1,2026-03-01T12:00:00Z,token:ci,0199-1\n\
             \"a, \"\"b\"\"\",stopped,eu-1,,i-2,small,,,,10.0.0.4/32,,,,2,2026-03-01T12:00:00Z,\
             token:ci,0199-2\n"
        );
    }

    #[test]
    fn names_are_what_other_commands_take() {
        assert_eq!(rows_of(Format::Name, &two()), "server/0199-1\nserver/0199-2\n");
    }

    #[test]
    fn json_and_yaml_hold_everything() {
        let json: Value = serde_json::from_str(&rows_of(Format::Json, &two())).unwrap();
        let yaml: Value = serde_norway::from_str(&rows_of(Format::Yaml, &two())).unwrap();
        assert_eq!(json, Value::Array(two()));
        assert_eq!(yaml, json);
        assert_eq!(rows_of(Format::Json, &[]), "[]\n");
    }
}
