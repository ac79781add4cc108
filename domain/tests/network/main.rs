//! Addresses against a naive set, and by example; many who want the last of something.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod addresses;
mod interleaved;
mod macs;
