//! The HTTP interface, over a log in memory and views folded on the spot.
#![expect(clippy::unwrap_used, reason = "tests may")]
#![expect(
    clippy::duration_suboptimal_units,
    clippy::format_collect,
    clippy::type_complexity,
    clippy::useless_format,
    reason = "tables of cases are read as they are written"
)]

mod agents;
mod audit;
mod commands;
mod document;
mod errors;
mod pages;
mod placed;
mod provider;
mod queries;
mod ready;
mod scope;
mod served;
mod views;
mod world;
