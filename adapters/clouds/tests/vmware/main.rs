//! The provider `vmware` against a stand-in: govmomi's simulator behind a front of ours
//! (`tests/servers/vcsim/main.go`).
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod listing;
mod moving;
mod world;
