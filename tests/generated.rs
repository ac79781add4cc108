//! Documents that are made from the lists. Each test compares what the lists say with the file in
//! `docs/`; with `BLESS=1` in the environment it writes the file instead:
//!
//! ```text
//! BLESS=1 cargo test --test generated
//! ```

#![expect(clippy::unwrap_used, reason = "a test that cannot read its sources fails")]

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use commands::ports::Support;
use domain::{
    kernel::{Caller, Code, Kind, REFUSALS, Role},
    kinds::KINDS,
};
use projections::{
    view::{Column, ColumnType, Indexing},
    views::{LENSES, VIEWS},
};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

/// What differs around the first line that does, for a message.
fn excerpt(file: &str, lists: &str) -> String {
    let (file, lists): (Vec<_>, Vec<_>) = (file.lines().collect(), lists.lines().collect());
    let same = file.iter().zip(&lists).take_while(|(left, right)| left == right).count();
    let mut out = String::new();
    for (sign, text) in [("file ", &file), ("lists", &lists)] {
        for (index, line) in text.iter().enumerate().skip(same).take(5) {
            writeln!(out, "{sign} {:>5}: {line}", index + 1).unwrap();
        }
    }
    out
}

#[track_caller]
fn check(name: &str, lists: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    if std::env::var("BLESS").is_ok_and(|value| value == "1") {
        fs::write(&path, lists).unwrap();
    }
    let file = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        file == lists,
        "docs/{name} is not what the lists say; BLESS=1 cargo test --test generated\n{}",
        excerpt(&file, lists)
    );
}

fn heading(title: &str, about: &str) -> String {
    format!("<!-- Made by tests/generated.rs; do not edit. -->\n\n# {title}\n\n{about}\n")
}

/// Text in a cell of a table: one line, no bars.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn table(out: &mut String, columns: &[&str], rows: &[Vec<String>]) {
    writeln!(out, "| {} |\n|{}", columns.join(" | "), "---|".repeat(columns.len())).unwrap();
    for row in rows {
        let row: Vec<_> = row.iter().map(|text| cell(text)).collect();
        writeln!(out, "| {} |", row.join(" | ")).unwrap();
    }
}

/// The name a reference leads to.
fn target(reference: &str) -> &str {
    reference.rsplit('/').next().unwrap_or_default()
}

/// A schema as a reader says it: `text`, `list of Rule`, `Origin or nothing`.
fn shape(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        return format!("[{0}](#{1})", target(reference), target(reference).to_lowercase());
    }
    if let Some(value) = schema.get("const") {
        return format!("`{}`", value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    }
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<_> = values.iter().filter_map(Value::as_str).collect();
        return format!("`{}`", values.join("`, `"));
    }
    for word in ["anyOf", "oneOf"] {
        if let Some(choices) = schema[word].as_array() {
            let choices: Vec<_> = choices.iter().map(shape).collect();
            return choices.join(" or ");
        }
    }
    let one = |name: &str| match name {
        "null" => "nothing".to_owned(),
        "boolean" => "yes or no".to_owned(),
        "integer" => "integer".to_owned(),
        "array" => format!("list of {}", shape(&schema["items"])),
        "object" if schema["additionalProperties"].is_object() => {
            format!("map to {}", shape(&schema["additionalProperties"]))
        }
        "object" if schema["properties"].is_object() => {
            let members = schema["properties"].as_object().into_iter().flatten();
            let members = members.map(|(name, member)| format!("`{name}` ({})", shape(member)));
            members.collect::<Vec<_>>().join(", ")
        }
        "object" => "object".to_owned(),
        "string" => match schema["format"].as_str() {
            Some("date-time") => "time".to_owned(),
            Some("uuid") => "id".to_owned(),
            _ => "text".to_owned(),
        },
        other => other.to_owned(),
    };
    match &schema["type"] {
        Value::String(name) => one(name),
        Value::Array(names) => {
            let names: Vec<_> = names.iter().filter_map(Value::as_str).map(one).collect();
            names.join(" or ")
        }
        _ => "anything".to_owned(),
    }
}

fn text<'a>(schema: &'a Value, member: &str) -> &'a str {
    schema[member].as_str().unwrap_or_default()
}

/// The fields of an object, as rows of a table.
fn fields(schema: &Value) -> Vec<Vec<String>> {
    let properties = schema["properties"].as_object().into_iter().flatten();
    let row = |(name, field): (&String, &Value)| {
        vec![format!("`{name}`"), shape(field), text(field, "description").to_owned()]
    };
    properties.map(row).collect()
}

/// The events of a kind, and the shapes they are made of.
fn events_of(kind: &Kind, shapes: &mut BTreeMap<String, Value>) -> String {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let schema = serde_json::to_value((kind.event_schema)(&mut generator)).unwrap();
    let mut definitions: Map<String, Value> = generator.take_definitions(true);
    let schema = match schema["$ref"].as_str() {
        Some(reference) => definitions.remove(target(reference)).unwrap(),
        None => schema,
    };
    let mut out = format!("\n## {}\n\n{}\n", kind.name, kind.summary);
    let events = schema["oneOf"].as_array().expect("events are a choice by tag");
    for event in events {
        let tag = text(&event["properties"]["type"], "const");
        assert!(!tag.is_empty(), "an event of {} has a tag: {event}", kind.name);
        let about = text(event, "description");
        assert!(!about.is_empty(), "{} {tag} says what it means", kind.name);
        write!(out, "\n### {} {tag}\n\n{}\n", kind.name, about.trim()).unwrap();
        let rows = fields(&event["properties"]["data"]);
        if !rows.is_empty() {
            out.push('\n');
            table(&mut out, &["field", "type", "means"], &rows);
        }
    }
    for (name, definition) in definitions {
        let known = shapes.entry(name.clone()).or_insert_with(|| definition.clone());
        assert_eq!(*known, definition, "two shapes are called {name}; rename one for documents");
    }
    out
}

#[test]
fn events_are_catalogued() {
    let mut out = heading(
        "Events",
        "Every fact that can be in the log, by kind of stream. A record also has the fields of its \
         header: position, time, stream, revision, actor, project, command, correlation, causation \
         and, where the caller gave one, the idempotency key. An event without a table has no \
         content.",
    );
    let mut shapes = BTreeMap::new();
    for kind in KINDS {
        out.push_str(&events_of(kind, &mut shapes));
    }
    out.push_str("\n## Streams of no kind\n\nTwo streams have no state that anybody reads.\n\n");
    let row = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
    table(
        &mut out,
        &["stream", "event", "fields", "means"],
        &[
            row([
                "`claim`",
                "`claimed`",
                "`kind`, `id`",
                "The resource with this kind and id took the name that is the stream's id, for \
                 itself alone. The stream must be new, so one counterpart has one mapping.",
            ]),
            row([
                "`request`",
                "`noted`",
                "`kind`, `id`, `verb`",
                "A command with an idempotency key changed nothing. Kept so that the key means the \
                 same command ever after.",
            ]),
        ],
    );
    out.push_str("\n## Shapes\n\nWhat fields above are made of.\n");
    for (name, schema) in &shapes {
        write!(out, "\n### {name}\n\n").unwrap();
        let about = text(schema, "description");
        if !about.is_empty() {
            write!(out, "{}\n\n", about.trim()).unwrap();
        }
        let rows = fields(schema);
        if !rows.is_empty() {
            table(&mut out, &["field", "type", "means"], &rows);
        } else if let Some(choices) = schema["oneOf"].as_array() {
            for choice in choices {
                writeln!(out, "- {}: {}", shape(choice), cell(text(choice, "description")))
                    .unwrap();
            }
        } else {
            writeln!(out, "{}.", shape(schema)).unwrap();
        }
    }
    check("events.md", &out);
}

fn orders(support: Option<&Support>) -> String {
    match support {
        None => "–".to_owned(),
        Some(Support { orders: [], .. }) => "seen".to_owned(),
        Some(support) => format!("seen; {}", support.orders.join(", ")),
    }
}

#[test]
fn capabilities_are_what_the_tables_say() {
    let mut providers: Vec<(&str, &'static [Support])> =
        adapters_clouds::PROVIDERS.iter().map(|entry| (entry.name, entry.table)).collect();
    providers.push(("sim", adapters_sim::TABLE));
    let mut out = heading(
        "Capabilities",
        "What each provider has of each kind: whether sync lists it, and which orders are carried \
         out. A command that would need anything else is refused with \
         [`unsupported`](refusals.md) before anything is written. `sim` is the cloud in memory of \
         tests and of the demo.",
    );
    out.push('\n');
    let mut columns = vec!["kind"];
    columns.extend(providers.iter().map(|(name, _)| *name));
    let of = |table: &'static [Support], kind: &str| table.iter().find(|row| row.kind == kind);
    let kinds = KINDS.iter().filter(|kind| {
        providers.iter().any(|(_, table)| table.iter().any(|row| row.kind == kind.name))
    });
    let rows: Vec<_> = kinds
        .map(|kind| {
            let mut row = vec![kind.name.to_owned()];
            row.extend(providers.iter().map(|(_, table)| orders(of(table, kind.name))));
            row
        })
        .collect();
    table(&mut out, &columns, &rows);
    for (name, table) in &providers {
        for row in *table {
            assert!(KINDS.iter().any(|kind| kind.name == row.kind), "{name}: {}", row.kind);
        }
        let limits = table.iter().filter(|row| !row.limits.is_empty()).collect::<Vec<_>>();
        if limits.is_empty() {
            continue;
        }
        write!(out, "\n## Limits of {name}\n").unwrap();
        for row in limits {
            write!(out, "\n{}:\n\n", row.kind).unwrap();
            for limit in row.limits {
                writeln!(out, "- {limit}").unwrap();
            }
        }
    }
    check("capabilities.md", &out);
}

fn codes(out: &mut String, codes: &[&Code]) {
    for code in codes {
        write!(
            out,
            "\n### {}\n\nStatus {}: {}.\n\n{}\n",
            code.code,
            code.status,
            code.title,
            code.advice.trim()
        )
        .unwrap();
    }
}

#[test]
fn refusals_have_a_page() {
    let mut out = heading(
        "Refusals and problems",
        "Every code that an answer of the API can have as `code`, what it means and what to do. \
         Codes are stable: none is ever used for anything else. The answer's `detail` says the \
         obstacle with its values.",
    );
    out.push_str("\n## A rule said no\n");
    codes(&mut out, REFUSALS);
    out.push_str("\n## The interface said no\n");
    codes(&mut out, adapters_http::problem::PROBLEMS);
    check("refusals.md", &out);
}

fn columns(out: &mut String, columns: &[Column]) {
    let rows: Vec<_> = columns
        .iter()
        .map(|column| {
            let kind = match column.column_type {
                ColumnType::Text => "text",
                ColumnType::Integer => "integer",
                ColumnType::Boolean => "yes or no",
            };
            let found = match column.indexing {
                Indexing::None => "",
                Indexing::Groups => "in groups",
                Indexing::Sparse => "in groups, where there is any",
                Indexing::Finds => "one by one",
            };
            [&format!("`{}`", column.name), kind, found, column.summary].map(str::to_owned).to_vec()
        })
        .collect();
    table(out, &["column", "type", "index", "means"], &rows);
}

#[test]
fn views_and_lenses_are_described() {
    let mut out = heading(
        "Views",
        "What can be read, and by which columns it is filtered and sorted. Every list and get \
         takes `at`, a time or a position of the past.",
    );
    for view in VIEWS {
        write!(out, "\n## {}\n\n{}\n\n", view.name(), view.summary()).unwrap();
        columns(&mut out, view.columns());
    }
    out.push_str(
        "\n## Lenses\n\nSome rows of a view, shown another way; its columns are the view's.\n\n",
    );
    let rows: Vec<_> = LENSES
        .iter()
        .map(|lens| {
            let only = lens.only.iter().map(|(column, value)| match value {
                Some(value) => format!("`{column}` is `{value}`"),
                None => format!("`{column}` has a value"),
            });
            let only = only.collect::<Vec<_>>().join(", ");
            [&*format!("`{}`", lens.name), &format!("`{}`", lens.view), &only, lens.summary]
                .map(str::to_owned)
                .to_vec()
        })
        .collect();
    table(&mut out, &["lens", "of", "rows whose", "means"], &rows);
    check("views.md", &out);
}

#[test]
fn kinds_and_their_commands_are_listed() {
    let mut out = heading(
        "Kinds and commands",
        "Everything that exists, and the commands it takes: `POST /v1/{kinds}/{id}/{command}`, and \
         for those that create also `POST /v1/{kinds}`. The role is the least that may send it.",
    );
    for kind in KINDS {
        write!(out, "\n## {}\n\n{} Path: `/v1/{}`.\n", kind.name, kind.summary, kind.plural)
            .unwrap();
        let rows: Vec<_> = (kind.verbs)()
            .iter()
            .filter_map(|verb| {
                let role = match verb.caller {
                    Caller::Person(Role::Agent) => "agent",
                    Caller::Person(Role::Viewer) => "viewer",
                    Caller::Person(Role::Operator) => "operator",
                    Caller::Person(Role::Admin) => "admin",
                    Caller::System => return None,
                };
                let creates = if verb.creates { "yes" } else { "" };
                let name = format!("`{}`", verb.name);
                Some([&name, role, creates, verb.summary].map(str::to_owned).to_vec())
            })
            .collect();
        if rows.is_empty() {
            out.push_str("\nOnly seen: it takes no commands.\n");
        } else {
            out.push('\n');
            table(&mut out, &["command", "role", "creates", "does"], &rows);
        }
    }
    check("kinds.md", &out);
}

#[test]
fn the_openapi_document_is_what_the_routes_say() {
    let document = serde_json::to_string_pretty(&adapters_http::openapi()).unwrap();
    check("openapi.json", &(document + "\n"));
}

/// What `skyledger … --help` prints, where no terminal says how wide it is.
fn help(words: &[&str]) -> String {
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_skyledger"))
        .args(words)
        .arg("--help")
        .env_clear()
        .output()
        .unwrap();
    assert!(out.status.success(), "{words:?}: {}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    lines.join("\n").trim().to_owned()
}

/// The names below `Commands:`.
fn subcommands(help: &str) -> Vec<String> {
    let part = help.split("\nCommands:\n").nth(1).unwrap_or_default();
    let lines = part.lines().take_while(|line| !line.is_empty());
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn the_command_line_is_what_its_help_says() {
    let mut out = heading("The command line", "What every command's `--help` prints.");
    let mut waiting: Vec<Vec<String>> = vec![Vec::new()];
    while let Some(words) = waiting.pop() {
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let text = help(&words);
        let title = [&["skyledger"], &words[..]].concat().join(" ");
        write!(out, "\n## {title}\n\n```text\n{text}\n```\n").unwrap();
        let mut below = subcommands(&text);
        below.reverse();
        waiting.extend(below.into_iter().map(|name| {
            words.iter().map(|word| (*word).to_owned()).chain([name]).collect::<Vec<_>>()
        }));
    }
    assert!(out.contains("## skyledger serve"), "the help lists commands");
    check("cli.md", &out);
}
