//! The console: what people see of Skyledger on a terminal.
//!
//! - [`client`]: the API over HTTP.
//! - [`format`]: table, JSON, YAML, CSV and names.
//! - [`columns`]: which columns a kind shows.
//! - [`show`]: one resource, a plan, an outcome, events, a diff, for people.
//! - [`progress`]: bars on long work, none where nobody looks.
//! - [`problem`] and [`exit`]: what went wrong, in words and as a code.
//! - [`names`], [`suggest`] and [`time`]: what people type: names, typos, moments.
#![warn(missing_docs)]
#![expect(
    clippy::format_push_string,
    reason = "texts for people are short, and `write!` would have a result to ignore at each line"
)]

pub mod client;
pub mod columns;
pub mod exit;
pub mod format;
pub mod names;
pub mod problem;
pub mod progress;
pub mod show;
pub mod style;
pub mod suggest;
pub mod time;
