//! The driver of a host, on a real libvirt with real QEMU: servers are launched from an image, read
//! their seed, are stopped, started and restarted, and leave nothing; every step of it dies once and
//! fails once.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod addresses;
mod adopt;
mod backup;
mod cdrom;
mod console;
mod dhcp;
mod disks;
mod functions;
mod groups;
mod host;
mod kept;
#[path = "../lab/kernel.rs"]
mod kernel;
#[path = "../lab/volumes.rs"]
mod lab;
mod life;
mod migrate;
mod move_in;
mod move_in_vmware;
mod nics;
mod operations;
mod placed;
mod rebuild;
mod segments;
mod sets;
mod snapshot;
mod steps;
mod storage;
mod volumes;

use adapters_kvm::driver::Kernel;
