//! Placement against brute force on small hosts, and by example.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod brute;
mod build;
mod examples;
mod properties;
