//! Disks that are on a host alone, on their way to another.
//!
//! The host that a server goes to makes empty disks as large as its own, and libvirt fills them while it
//! sends the server, through the same daemons and addresses as its memory. Whole disks are sent, with what
//! their image has of them: the other host need not have that image, and nothing there depends on it.
//!
//! A server that does not run has its disks sent in the same way. A machine with these disks and nothing
//! else, the *carrier*, is made under the server's name, held before its first instruction, and sent; on
//! the other host it is taken away before the server itself is made known there. So a server that is
//! stopped is started nowhere by it.

use std::time::Duration;

use adapters_libvirt::{Limits, State, description::Description};
use commands::ports::{DriverFault, Report};
use domain::compute::server::migrate::Landing;
use uuid::Uuid;

use super::{
    Inner, Step, Work,
    fault::libvirt,
    find,
    migrate::{RUNS, why},
    power_off, state, wanted,
};

/// Memory of a carrier, which nothing is ever written into, in KiB.
const CARRIER_KIB: u64 = 64 << 10;

impl Inner {
    /// Empty disks for those of a server that comes with all that is on them.
    pub(super) async fn make_room(&self, work: &Work<'_>) -> Result<(), DriverFault> {
        let local = work.home.local_disks();
        if local.is_empty() {
            return Ok(());
        }
        let wire = self.wire.get().await?;
        if let Some(domain) = find(&wire, work.server).await?
            && state(&wire, &domain).await?.is_active()
        {
            let why = format!("{} runs here already", domain.name);
            return Err(DriverFault::Rejected(why));
        }
        let make = async {
            for disk in work.home.parts.disks.iter().filter(|disk| local.contains(&disk.id)) {
                // What an earlier way has left is of another time.
                self.storage.delete(disk.id).await?;
                let (format, bytes) = (wanted::format(disk.format), disk.size_gib << 30);
                self.storage.create(disk.id, format, bytes).await?;
            }
            Ok(())
        };
        self.step(Step::Disks, work.server, make).await
    }

    /// Sends the disks of a server that does not run.
    pub(super) async fn carry(
        &self,
        work: &Work<'_>,
        landing: &Landing,
        patience: Duration,
    ) -> Result<Report, DriverFault> {
        let server = work.server;
        // Of what an agent has begun that died nobody knows whether all of it is there: it begins anew.
        self.left(server, Duration::ZERO).await?;
        self.end_carrier(server).await?;
        let wire = self.wire.get().await?;
        if let Some(domain) = find(&wire, server).await?
            && state(&wire, &domain).await?.is_active()
        {
            return self.stays(work, RUNS.to_owned()).await;
        }
        let carrier = self.carrier(work).await?;
        let send = async {
            let domain = wire.run_as(&carrier.xml(), true).await.map_err(libvirt)?;
            let there = self.destination(&wire, &domain, work, landing).await?;
            self.hand_over((server, domain), there, patience).await
        };
        let said = self.step(Step::Send, server, send).await?;
        if said.is_ok() {
            return self.sent(work, true).await;
        }
        self.left(server, Duration::ZERO).await?;
        self.end_carrier(server).await?;
        self.stays(work, why(server, said.err())).await
    }

    /// A machine that has a server's disks, and is never let go on.
    async fn carrier(&self, work: &Work<'_>) -> Result<Description, DriverFault> {
        let (server, home) = (work.server, work.home);
        let (local, layout) = (home.local_disks(), self.lies().await?);
        let mut machine = Description::new(&wanted::name(server), server, CARRIER_KIB, 1);
        machine.virtualisation = self.virtualisation().await?;
        wanted::board(&mut machine, home.spec.architecture);
        for (at, disk) in home.parts.disks.iter().enumerate() {
            if local.contains(&disk.id) {
                let mut device = wanted::disk((at, home.parts.hardware.disks), disk, &layout)?;
                device.limits = Limits::new();
                machine.disks.push(device);
            }
        }
        machine.spare_slots = machine.disks.len() as u32 + 4;
        machine.position = work.number;
        Ok(machine)
    }

    /// Takes a carrier away. A machine that goes on is none.
    pub(super) async fn end_carrier(&self, server: Uuid) -> Result<(), DriverFault> {
        let wire = self.wire.get().await?;
        let Some(domain) = find(&wire, server).await? else { return Ok(()) };
        if state(&wire, &domain).await? != State::Paused {
            return Ok(());
        }
        self.step(Step::Stop, server, power_off(&wire, &domain)).await
    }

    /// Lets a server go on where it was, which nobody else has.
    pub(super) async fn take_back(&self, work: &Work<'_>) -> Result<(), DriverFault> {
        match &work.home.moving {
            Some(moving) if !moving.live => self.end_carrier(work.server).await,
            _ => self.resume(work).await,
        }
    }
}
