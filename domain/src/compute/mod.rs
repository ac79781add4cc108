//! Machines and their disks.

pub mod disk;
pub mod server;
pub mod shape;
pub mod utilisation;
