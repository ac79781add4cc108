//! Machines, where they go, and their disks.

pub mod disk;
pub mod host;
pub mod placement;
pub mod server;
pub mod shape;
pub mod utilisation;
