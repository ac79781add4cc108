//! Machines, where they go, their disks, what they are made from, and what they do at their first boot.

pub mod adoption;
pub mod backup;
pub mod backup_plan;
pub mod backup_set;
pub mod backup_store;
pub mod device;
pub mod disk;
pub mod drain;
pub mod flavour;
pub mod host;
pub mod image;
pub mod key_pair;
pub mod move_in;
pub mod placement;
pub mod server;
pub mod shape;
pub mod snapshot;
pub mod storage;
pub mod userdata;
pub mod utilisation;
