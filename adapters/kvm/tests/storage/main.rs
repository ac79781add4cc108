//! Storage of a host with its real tools, in folders of the test's own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cache;
mod crash;
mod directory;
mod seed;
mod volume_group;
#[path = "../lab/volumes.rs"]
mod volumes;
