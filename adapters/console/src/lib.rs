//! The console: what people see of Skyledger on a terminal.
//!
//! - [`client`]: the API over HTTP.
//! - [`format`]: table, JSON, YAML, CSV and names.
//! - [`columns`]: which columns a kind shows.
//! - [`costs`]: sums by group, where a number comes from, what came of a bill's file.
//! - [`forecasts`]: what comes next, beside what was.
//! - [`hosts`]: hosts of our own.
//! - [`show`]: one resource, a plan, an outcome, events, a diff, for people.
//! - [`sources`]: machines that others run.
//! - [`progress`]: bars on long work, none where nobody looks.
//! - [`story`]: the demo, told step by step; every step asserts what it says.
//! - [`terminal`]: consoles of servers.
//! - [`problem`] and [`exit`]: what went wrong, in words and as a code.
//! - [`watch`]: costs that are watched.
//! - [`input`], [`names`], [`suggest`] and [`time`]: what people type: bodies, names, typos, moments.
#![warn(missing_docs)]
#![expect(
    clippy::format_push_string,
    reason = "texts for people are short, and `write!` would have a result to ignore at each line"
)]

pub mod client;
pub mod columns;
pub mod costs;
pub mod exit;
pub mod forecasts;
pub mod format;
pub mod hosts;
pub mod input;
pub mod names;
pub mod problem;
pub mod progress;
pub mod show;
pub mod sources;
pub mod story;
pub mod style;
pub mod suggest;
pub mod terminal;
pub mod time;
pub mod watch;
