//! The steps that change something on a host, and where a test may stop them.

use async_trait::async_trait;
use commands::ports::DriverFault;
use uuid::Uuid;

/// A step that changes something on a host. Each is looked at first, and can be run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// It is written down that a machine is ours.
    Adopt,
    /// Another disc is in its drive.
    Cdrom,
    /// Nothing is written down of a server that was adopted, and nothing is set for it.
    Release,
    /// The image of the root disk is in the cache.
    Image,
    /// The disks are there.
    Disks,
    /// What the server reads at its first boot is there.
    Seed,
    /// Its bridges are there, and nothing passes them that may not.
    Network,
    /// Its devices of the host are as they are to be.
    Devices,
    /// Nobody else runs on the CPUs that are its alone.
    Spread,
    /// libvirt knows the server.
    Define,
    /// It runs.
    Start,
    /// It is written down that it is to be restarted.
    Note,
    /// A small system in memory runs in its place.
    Rescue,
    /// A password inside it is set.
    Password,
    /// A disk is offered for a backup.
    Offer,
    /// A disk that was written back is in its place.
    Replace,
    /// A disk that is made from a backup or a snapshot is there.
    Fill,
    /// A snapshot of a disk is there.
    Snapshot,
    /// A disk is what it was at a snapshot.
    RollBack,
    /// A snapshot of a disk is gone.
    DeleteSnapshot,
    /// It runs on another host.
    Send,
    /// Its being sent to another host was broken off.
    BreakOff,
    /// It is held.
    Suspend,
    /// It goes on.
    Resume,
    /// It has stopped.
    Stop,
    /// A machine that runs has become larger.
    Grow,
    /// libvirt knows it no more.
    Undefine,
    /// Its files are gone.
    Clear,
    /// Nothing of it is left on the network.
    Unplug,
    /// A disk is as large as it is to be.
    DiskGrow,
    /// A disk has its limits.
    DiskLimits,
    /// The server's machine has a disk.
    DiskPlug,
    /// The server's machine has a disk no more.
    DiskUnplug,
    /// An interface of it has other addresses inside.
    Addresses,
    /// It may use those, and not any more those that it had.
    Guard,
    /// Its interfaces have their limits.
    NicLimits,
    /// The server's machine has an interface.
    NicPlug,
    /// The server's machine has an interface no more.
    NicUnplug,
}

impl Step {
    /// Every step.
    pub const ALL: [Self; 38] = [
        Self::Adopt,
        Self::Cdrom,
        Self::Release,
        Self::Image,
        Self::Disks,
        Self::Seed,
        Self::Network,
        Self::Devices,
        Self::Spread,
        Self::Define,
        Self::Start,
        Self::Note,
        Self::Rescue,
        Self::Password,
        Self::Offer,
        Self::Replace,
        Self::Fill,
        Self::Snapshot,
        Self::RollBack,
        Self::DeleteSnapshot,
        Self::Send,
        Self::BreakOff,
        Self::Suspend,
        Self::Resume,
        Self::Stop,
        Self::Grow,
        Self::Undefine,
        Self::Clear,
        Self::Unplug,
        Self::DiskGrow,
        Self::DiskLimits,
        Self::DiskPlug,
        Self::DiskUnplug,
        Self::Addresses,
        Self::Guard,
        Self::NicLimits,
        Self::NicPlug,
        Self::NicUnplug,
    ];
}

/// On which side of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Nothing of it was done.
    Before,
    /// All of it was done.
    After,
}

/// Asked at every step: a test fails it, or never comes back from it, which is a crash.
#[async_trait]
pub trait Hook: Send + Sync + 'static {
    /// A step of an order of a server, or of a disk, is about to be done, or was done.
    ///
    /// # Errors
    /// The order ends with it.
    async fn at(&self, step: Step, side: Side, of: Uuid) -> Result<(), DriverFault>;
}

/// Nobody asks.
#[derive(Clone, Copy, Debug)]
pub struct NoHook;

#[async_trait]
impl Hook for NoHook {
    async fn at(&self, _: Step, _: Side, _: Uuid) -> Result<(), DriverFault> {
        Ok(())
    }
}
