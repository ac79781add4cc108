//! Machines, where they go, their disks, and what they do at their first boot.

pub mod disk;
pub mod host;
pub mod placement;
pub mod server;
pub mod shape;
pub mod userdata;
pub mod utilisation;
