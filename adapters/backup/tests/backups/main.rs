//! Backups in memory, in a stand-in for S3, and of disks of the real tools.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod disks;
mod images;
mod interleaved;
mod memory;
mod rules;
mod s3;
