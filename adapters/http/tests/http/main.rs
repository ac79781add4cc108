//! The HTTP interface, over a log in memory and views folded on the spot.
#![expect(clippy::unwrap_used, reason = "tests may")]

mod audit;
mod commands;
mod document;
mod errors;
mod provider;
mod queries;
mod scope;
mod served;
mod views;
mod world;
