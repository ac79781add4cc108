//! The rest of an IOMMU group. VFIO gives a server a device only when nothing else of its group has a driver of
//! the host: what libvirt does with the devices that a server asked for (`managed`) is done here with the others
//! of their groups, which nobody gets.
//!
//! ```text
//! the host's driver ──before its server starts──► vfio-pci ──when it has ended──► the host's driver
//! ```
//!
//! Which device is taken from which driver is written down first, so that it goes back after a crash as well, and
//! what counts is the driver that a device is seen to have then. Nothing is taken when something of the group
//! cannot be: what the host has come to use, what was plugged in since, and parts of the machine that have a
//! driver. Bridges keep theirs, and so does what an operator bound to `vfio-pci` by hand.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use commands::ports::DriverFault;
use domain::compute::{placement::Holding, server::Power};
use tokio::{task::spawn_blocking, time::timeout};
use uuid::Uuid;

use super::{Inner, Seen, Step, find, records::Record, sighting, state};
use crate::{
    observe::{
        Tree,
        devices::{Devices, Kept, hinders},
    },
    storage::StorageFault,
};

/// What has devices that are servers'.
const DRIVER: &str = "vfio-pci";
/// How long a driver may take to let a device go: one that is in use may never do so.
const LET_GO: Duration = Duration::from_secs(30);
const PCI: &str = "sys/bus/pci";

/// Who is told by the kernel's files what drivers devices are to have, and what is to be made of them.
pub trait Kernel: Send + Sync + 'static {
    /// Writes to one of its files: what that says is done then, or refused.
    ///
    /// # Errors
    /// The kernel's.
    fn tell(&self, file: &Path, text: &str) -> io::Result<()>;
}

/// The one that runs here.
#[derive(Clone, Copy, Debug)]
pub struct ThisKernel;

impl Kernel for ThisKernel {
    fn tell(&self, file: &Path, text: &str) -> io::Result<()> {
        std::fs::write(file, text)
    }
}

/// What is taken from drivers of the host before a server gets its devices: the driver of each, by address.
fn plan(
    found: &Devices,
    holding: &Holding,
    kept: &Kept,
) -> Result<BTreeMap<String, String>, DriverFault> {
    let no = |why: String| Err(DriverFault::Rejected(why));
    let mut groups = BTreeSet::new();
    for id in &holding.devices {
        let Some(pci) = found.pci.get(id) else { continue };
        if found.in_use.contains(id) {
            return no(format!("device {id} is used by the host: nothing is taken from it"));
        }
        groups.extend(pci.iommu_group);
    }
    let mut taken = BTreeMap::new();
    for (address, pci) in found.pci.iter().filter(|(id, _)| !holding.devices.contains(*id)) {
        let Some(driver) = pci.driver.as_ref().filter(|driver| hinders(driver)) else { continue };
        if !pci.iommu_group.is_some_and(|group| groups.contains(&group)) {
            continue;
        }
        let of = format!(
            "device {address}, which {driver} has, is of the IOMMU group of a device of the server"
        );
        if !holding.devices_with.contains(address) {
            return no(format!("{of}, and was not when the server was placed: it is not taken"));
        }
        if found.is_kept(address, pci, kept) {
            return no(format!("{of}, and is used by the host: it is not taken"));
        }
        taken.insert(address.clone(), driver.clone());
    }
    Ok(taken)
}

impl Inner {
    /// Everything else of the groups of a server's devices is taken from the host's drivers.
    pub(super) async fn take_companions(
        &self,
        server: Uuid,
        holding: &Holding,
        found: &Devices,
    ) -> Result<(), DriverFault> {
        let mut record = self.records.read(server).await?.unwrap_or_default();
        let is_old = |address: &String| !holding.devices_with.contains(address);
        if record.taken.keys().any(is_old) {
            self.give_back_companions(server).await?;
            record = self.records.read(server).await?.unwrap_or_default();
        }
        let mut kept = self.options.kept.clone();
        if !holding.devices_with.is_empty() {
            kept.interfaces.extend(sighting::with_address(&self.options.place).await?);
        }
        record.taken.extend(plan(found, holding, &kept)?);
        if record.taken.is_empty() {
            return Ok(());
        }
        self.records.write(server, &record).await?;
        if !self.tree().has(&format!("{PCI}/drivers/{DRIVER}")) {
            let load = self.options.place.tool("modprobe", [DRIVER]).run().await;
            load.map_err(|fault| DriverFault::Rejected(format!("{DRIVER}: {fault}")))?;
        }
        for (address, driver) in &record.taken {
            self.take_from(address, driver).await?;
        }
        Ok(())
    }

    /// A device has [`DRIVER`] from now on, or none when there is no such device.
    async fn take_from(&self, address: &str, driver: &str) -> Result<(), DriverFault> {
        let device = format!("{PCI}/devices/{address}");
        if !self.tree().has(&device) || self.driver_of(address).as_deref() == Some(DRIVER) {
            return Ok(());
        }
        // First, or the next driver that is loaded would have it.
        self.tell(format!("{device}/driver_override"), DRIVER).await?;
        if self.driver_of(address).as_deref().is_some_and(hinders) {
            self.tell(format!("{device}/driver/unbind"), address).await?;
        }
        if self.driver_of(address).is_none() {
            self.tell(format!("{PCI}/drivers_probe"), address).await?;
        }
        match self.driver_of(address) {
            Some(is) if is == DRIVER => Ok(()),
            is => Err(DriverFault::Rejected(format!(
                "device {address} was taken from {driver} for {DRIVER}, and what has it is {is:?}"
            ))),
        }
    }

    /// What was taken for a server is the host's drivers' again.
    pub(super) async fn give_back_companions(&self, server: Uuid) -> Result<(), DriverFault> {
        let Some(record) = self.records.read(server).await? else { return Ok(()) };
        if record.taken.is_empty() {
            return Ok(());
        }
        for (address, driver) in &record.taken {
            self.give_back(address, driver).await?;
        }
        Ok(self.records.write(server, &Record { taken: BTreeMap::new(), ..record }).await?)
    }

    /// The same for a server that has ended, which is no less true when something stays: it is tried again
    /// whenever it is looked what servers do.
    pub(super) async fn let_companions_go(&self, server: Uuid) -> Result<(), DriverFault> {
        if self.records.read(server).await?.is_none_or(|record| record.taken.is_empty()) {
            return Ok(());
        }
        let give_back = async {
            if let Err(fault) = self.give_back_companions(server).await {
                tracing::warn!(%fault, %server, "devices of its IOMMU groups stay with {DRIVER}");
            }
            Ok(())
        };
        self.step(Step::Devices, server, give_back).await
    }

    async fn give_back(&self, address: &str, driver: &str) -> Result<(), DriverFault> {
        let device = format!("{PCI}/devices/{address}");
        let tree = self.tree();
        if !tree.has(&device) {
            return Ok(());
        }
        if tree.text(&format!("{device}/driver_override"))?.as_deref() == Some(DRIVER) {
            // An empty line takes it back.
            self.tell(format!("{device}/driver_override"), "\n").await?;
        }
        if self.driver_of(address).as_deref() == Some(DRIVER) {
            self.tell(format!("{device}/driver/unbind"), address).await?;
        }
        if self.driver_of(address).is_none() {
            self.tell(format!("{PCI}/drivers_probe"), address).await?;
        }
        match self.driver_of(address) {
            Some(is) if is == DRIVER => Err(DriverFault::Rejected(format!(
                "device {address} was given back to {driver}, and {DRIVER} has it still"
            ))),
            // Its driver may have been taken from the host: nobody is kept from anything by that.
            is if is.as_deref() != Some(driver) => {
                tracing::warn!(device = address, driver, ?is, "a device has another driver now");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// What was taken for servers that have ended by themselves, or that never started, goes back. One for which
    /// something is done at the moment is left to that.
    pub(super) async fn end_companions(&self, seen: &BTreeMap<Uuid, Seen>) {
        let records = match self.records.all().await {
            Ok(records) => records,
            Err(fault) => {
                tracing::warn!(%fault, "devices of IOMMU groups may stay with {DRIVER}");
                return;
            }
        };
        for (server, record) in records {
            let is_off = |seen: &Seen| seen.power == Power::Stopped;
            if record.taken.is_empty() || !seen.get(&server).is_none_or(is_off) {
                continue;
            }
            let Some(_turn) = self.turns.at_once(server) else { continue };
            let end = async {
                let wire = self.wire.get().await?;
                // It may have been started since it was seen.
                match find(&wire, server).await? {
                    Some(domain) if state(&wire, &domain).await?.is_active() => Ok(()),
                    _ => self.let_companions_go(server).await,
                }
            };
            if let Err(fault) = end.await {
                tracing::warn!(%fault, %server, "devices of its IOMMU groups stay with {DRIVER}");
            }
        }
    }

    fn tree(&self) -> Tree {
        Tree::at(&self.options.kernel)
    }

    /// The driver that has a device now.
    fn driver_of(&self, address: &str) -> Option<String> {
        self.tree().link(&format!("{PCI}/devices/{address}/driver"))
    }

    async fn tell(&self, file: String, text: &str) -> Result<(), DriverFault> {
        Ok(self.told(file, text).await??)
    }

    /// Writes to one of the kernel's files: what the kernel says to it.
    ///
    /// # Errors
    /// It says nothing for a while.
    pub(super) async fn told(
        &self,
        file: String,
        text: &str,
    ) -> Result<Result<(), StorageFault>, DriverFault> {
        let (path, text): (PathBuf, String) = (self.options.kernel.join(file), text.to_owned());
        let (kernel, at) = (Arc::clone(&self.options.files), path.clone());
        let told = timeout(LET_GO, spawn_blocking(move || kernel.tell(&at, &text))).await;
        let Ok(told) = told else {
            return Err(DriverFault::Transient(format!(
                "{}: nothing has come of it for {} seconds; is the device in use?",
                path.display(),
                LET_GO.as_secs()
            )));
        };
        let told = told.map_err(|error| DriverFault::Unexpected(error.to_string()))?;
        Ok(told.map_err(StorageFault::file("cannot write", &path)))
    }
}

#[cfg(test)]
mod tests;
