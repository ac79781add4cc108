//! The composition root: command line, configuration and wiring. No logic lives here.
//!
//! - `cli`: the grammar of the command line, and what each command does.
//! - `config`: a server's configuration, from flags, environment and file.
//! - `compose`: one server from one configuration; `store` picks the store, `schedule` looks at
//!   accounts again, `cost_watch` at costs, `edge` brings time and randomness, `telemetry` logs and traces.
//! - `local_host`: this machine as a host of ours.
//! - `demo`: the stage on which the console tells its story.

mod cli;
mod compose;
mod config;
mod connection;
mod cost_watch;
mod demo;
mod edge;
mod local_host;
mod schedule;
mod store;
mod telemetry;

pub use cli::run;
