//! The provider `aws` against a stand-in: a moto server, and a proxy that breaks calls on demand.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod auth;
mod faults;
mod listing;
mod security_group;
mod server;
mod world;
