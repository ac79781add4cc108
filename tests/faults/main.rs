//! What must not break the log: killed processes, full disks, restarted servers, two servers at
//! once, damaged records.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod damage;
mod full_disk;
mod killed;
mod killed_server;
mod postgres_restart;
mod served;
mod support;
mod two_servers;
