//! vGPUs that are virtual functions of their card ([`crate::observe::vgpu`]): chosen, made, given back.
//!
//! Which function a server's vGPU is, is written down before libvirt is told of it, and only then is it made, so
//! whoever comes after a crash goes on with the same one. It stays what it is while its server is stopped, is
//! made again after a restart of the host, and is nothing again when the server is gone. A function that has
//! become something else meanwhile is somebody else's, and is let alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use commands::ports::DriverFault;
use domain::compute::placement::{Holding, SeenVgpu};
use uuid::Uuid;

use super::{Inner, records::Record};
use crate::{
    observe::{
        Tree,
        devices::Devices,
        vgpu::{self, Card, Slot},
    },
    storage::{StorageFault, files},
};

impl Inner {
    /// The virtual functions that a server's vGPUs are, by their ids: those that were chosen, and others for
    /// those that can be it no more.
    pub(super) async fn seat_vgpus(
        &self,
        server: Uuid,
        holding: &Holding,
    ) -> Result<BTreeMap<String, String>, DriverFault> {
        let read = |id: &String| Some((id.clone(), Slot::read(id)?));
        let slots: BTreeMap<String, Slot> = holding.devices.iter().filter_map(read).collect();
        if slots.is_empty() {
            return Ok(BTreeMap::new());
        }
        // Two servers at once would choose the same.
        let _alone = self.seating.lock().await;
        let found = self.look().await?;
        let mut records = self.records.all().await?;
        let mut record = records.remove(&server).unwrap_or_default();
        let mut taken: BTreeSet<String> = self.options.kept.devices.clone();
        taken.extend(records.into_values().flat_map(|record| record.vgpus.into_values()));
        taken.extend(record.vgpus.values().cloned());
        for (id, slot) in &slots {
            if record.vgpus.get(id).is_some_and(|function| may_be(&found, function, slot)) {
                continue;
            }
            let function = vgpu::choose(&found, slot, &taken).ok_or_else(|| {
                let Slot { card, of_type, .. } = slot;
                DriverFault::Rejected(format!(
                    "no virtual function of {card} can be made a vGPU of type {of_type} now: all are \
                     given out, or others have taken the card's memory"
                ))
            })?;
            taken.insert(function.clone());
            record.vgpus.insert(id.clone(), function);
        }
        self.records.write(server, &record).await?;
        record.vgpus.retain(|id, _| slots.contains_key(id));
        Ok(record.vgpus)
    }

    /// The functions that were chosen for a server are its vGPUs.
    pub(super) async fn make_vgpus(&self, record: &Record) -> Result<(), DriverFault> {
        for (id, function) in &record.vgpus {
            if let Some(slot) = Slot::read(id) {
                self.set_vgpu(function, slot.of_type).await?;
            }
        }
        Ok(())
    }

    /// What a server's vGPUs are on its host.
    pub(super) fn seen_vgpus(
        &self,
        record: &Record,
    ) -> Result<BTreeMap<String, SeenVgpu>, DriverFault> {
        let mut seen = BTreeMap::new();
        for (id, address) in &record.vgpus {
            let vgpu_type = self.vgpu_type(address)?.unwrap_or(0);
            seen.insert(id.clone(), SeenVgpu { address: address.clone(), vgpu_type });
        }
        Ok(seen)
    }

    /// The functions that were a server's vGPUs are nothing again, but for those that it keeps.
    pub(super) async fn release_vgpus(
        &self,
        record: &mut Record,
        kept: &BTreeSet<String>,
    ) -> Result<(), DriverFault> {
        for (id, function) in std::mem::take(&mut record.vgpus) {
            if kept.contains(&id) {
                record.vgpus.insert(id, function);
                continue;
            }
            let of_type = Slot::read(&id).map(|slot| slot.of_type);
            if of_type.is_some() && self.vgpu_type(&function)? == of_type {
                self.set_vgpu(&function, 0).await?;
            }
        }
        Ok(())
    }

    /// The type that a function is; none when it is not there.
    fn vgpu_type(&self, function: &str) -> Result<Option<u32>, DriverFault> {
        Ok(Tree::at(&self.options.kernel).number(&vgpu::current_file(function))?)
    }

    async fn set_vgpu(&self, function: &str, of_type: u32) -> Result<(), DriverFault> {
        if self.vgpu_type(function)? == Some(of_type) {
            return Ok(());
        }
        let told = self.told(vgpu::current_file(function), &of_type.to_string()).await?;
        told.map_err(|fault| {
            DriverFault::Rejected(format!(
                "{fault}: the card's memory may be given out, or the function may be in use"
            ))
        })?;
        // What counts is what it is, and not that nobody complained.
        let is = self.vgpu_type(function)?;
        if is == Some(of_type) {
            return Ok(());
        }
        Err(DriverFault::Unexpected(format!("{function} was made type {of_type}, and is {is:?}")))
    }

    /// The functions that are servers' vGPUs, by the ids of those.
    pub(super) async fn seated_vgpus(&self) -> Result<BTreeMap<String, String>, DriverFault> {
        let records = self.records.all().await?;
        Ok(records.into_values().flat_map(|record| record.vgpus).collect())
    }

    /// What was ever seen of cards, with what is seen now.
    pub(super) async fn cards(&self) -> Result<BTreeMap<String, Card>, DriverFault> {
        let path = self.cards_file();
        let known = match tokio::fs::read(&path).await {
            // A file that does not read is made again: it only helps to count.
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => Err(StorageFault::file("cannot read", &path)(error))?,
        };
        let cards = vgpu::cards(&self.look().await?, &known);
        if cards != known {
            let part = files::part(&path);
            let text = serde_json::to_vec(&cards).unwrap_or_default();
            let written = tokio::fs::write(&part, text).await;
            written.map_err(StorageFault::file("cannot write", &part))?;
            files::put_in_place(&part, &path).await?;
        }
        Ok(cards)
    }

    fn cards_file(&self) -> PathBuf {
        self.options.folder.join("cards.json")
    }
}

/// Whether a function that was chosen can still be a slot's vGPU: it is, or it is nothing.
fn may_be(found: &Devices, function: &str, slot: &Slot) -> bool {
    let current = found.pci.get(function).and_then(|pci| Some(pci.vgpu.as_ref()?.current));
    current.is_some_and(|current| current == 0 || current == slot.of_type)
}

#[cfg(test)]
mod tests;
