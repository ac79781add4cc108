//! Servers that were somebody's domains. A domain is adopted by writing that down: it is neither stopped nor
//! defined anew. Its definition stays its own, and when it is started here the few things of it that are ours
//! to say are changed in it: its size where that was changed, and what the host calls its interfaces, by
//! which they are limited and guarded. Its disks stay where they lie and are never removed by us; a name of
//! ours leads to each, by which it is found as every other disk is.

use std::collections::BTreeMap;

use adapters_libvirt::{
    Affects, Connection, Domain,
    description::{Amendment, Description},
};
use commands::ports::{DriverFault, Report};
use domain::compute::server::{Machine, home::Home};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::fs;
use uuid::Uuid;

use super::{
    Inner, Step, Work, backup::drop_changes, disks::described, fault::libvirt, find,
    records::Record, start, state, wanted,
};

/// How much of a definition's SHA-256 names it, in hexadecimal digits.
const DIGEST_CHARS: usize = 32;

/// Names a definition.
pub(super) fn digest(xml: &str) -> String {
    let mut digest = format!("{:x}", Sha256::digest(xml));
    digest.truncate(DIGEST_CHARS);
    digest
}

impl Inner {
    /// It is ours from now on, if it is what was looked at.
    pub(super) async fn adopt(&self, work: &Work<'_>, looked_at: &str) -> Result<(), DriverFault> {
        let wire = self.wire.get().await?;
        let domain = self.adoptable(&wire, work).await?;
        let xml = wire.xml(&domain, Affects::Config).await.map_err(libvirt)?;
        if digest(&xml) != looked_at {
            let why = format!("{} was changed since it was looked at", domain.name);
            return Err(DriverFault::Rejected(why));
        }
        let note = async {
            let record = self.records.read(work.server).await?.unwrap_or_default();
            let record = Record { adopted: true, ..record };
            Ok(self.records.write(work.server, &record).await?)
        };
        self.step(Step::Adopt, work.server, note).await
    }

    /// The domain that is adopted, or was.
    async fn adoptable(&self, wire: &Connection, work: &Work<'_>) -> Result<Domain, DriverFault> {
        find(wire, work.server).await?.ok_or_else(|| {
            let name = work.home.adopted.as_ref().map_or("the domain", |adopted| &adopted.name);
            DriverFault::Rejected(format!("libvirt knows {name} no more: define it again"))
        })
    }

    /// Disks that were there before their server was ours are found by their ids.
    pub(super) async fn place_disks(&self, home: Option<&Home>) -> Result<(), DriverFault> {
        let home = home.filter(|home| !home.removed);
        for disk in home.iter().flat_map(|home| &home.parts.disks) {
            if let Some(path) = &disk.in_place {
                let format = wanted::format(disk.format);
                self.storage.place(disk.id, format, path.as_ref()).await?;
            }
        }
        Ok(())
    }

    /// It is ours no more: what was set for it is taken away, and it does what it does.
    pub(super) async fn release(&self, work: &Work<'_>) -> Result<Report, DriverFault> {
        let let_go = async {
            let wire = self.wire.get().await?;
            let domain = find(&wire, work.server).await?;
            for disk in work.home.parts.disks.iter().filter(|disk| disk.in_place.is_some()) {
                if let Some(domain) = &domain {
                    drop_changes(&wire, domain, disk.id).await?;
                }
                self.storage.displace(disk.id).await?;
            }
            self.plugs.let_go(&self.records, work.server).await
        };
        self.step(Step::Release, work.server, let_go).await?;
        Ok(Report { verb: "confirm-removal", body: json!({"number": work.number}) })
    }

    /// It runs, as its definition and we say.
    pub(super) async fn start_adopted(&self, work: &Work<'_>) -> Result<(), DriverFault> {
        let (server, home) = (work.server, work.home);
        let wire = self.wire.get().await?;
        let domain = self.adoptable(&wire, work).await?;
        for path in home.parts.disks.iter().filter_map(|disk| disk.in_place.as_ref()) {
            // Where libvirt has mounts of its own they are seen there alone.
            let here = self.options.root.join(path.trim_start_matches('/'));
            if fs::metadata(path).await.is_err() && fs::metadata(&here).await.is_err() {
                return Err(DriverFault::Rejected(format!("its disk {path} is not there")));
            }
        }
        self.plug(work).await?;
        self.activate(work).await?;
        if !state(&wire, &domain).await?.is_active() {
            let size = (home.spec.vcpus, home.spec.memory_mib);
            self.step(Step::Define, server, self.amend(&wire, &domain, work, size)).await?;
        }
        self.step(Step::Start, server, start(&wire, &domain)).await?;
        self.limit_new(work).await
    }

    /// It is of another size from its next start on.
    pub(super) async fn resize_adopted(
        &self,
        work: &Work<'_>,
        size: (u32, u64),
    ) -> Result<(), DriverFault> {
        let wire = self.wire.get().await?;
        let domain = self.adoptable(&wire, work).await?;
        self.step(Step::Define, work.server, self.amend(&wire, &domain, work, size)).await
    }

    /// Its definition has what is ours to say of it, as of this order.
    async fn amend(
        &self,
        wire: &Connection,
        domain: &Domain,
        work: &Work<'_>,
        (vcpus, memory_mib): (u32, u64),
    ) -> Result<(), DriverFault> {
        let is = described(wire, domain, Affects::Config).await?;
        if is.position == work.number {
            return Ok(());
        }
        let nics = work.home.parts.nics.iter();
        let amendment = Amendment {
            vcpus: (is.vcpus != vcpus).then_some(vcpus),
            memory_kib: (is.memory_kib.div_ceil(1 << 10) != memory_mib).then_some(memory_mib << 10),
            ports: nics.map(|nic| (nic.mac.to_string(), wanted::tap(nic.id))).collect(),
            position: work.number,
        };
        let xml = wire.definition(domain).await.map_err(libvirt)?;
        let xml = amendment.of(&xml).map_err(|no| DriverFault::Unexpected(no.to_string()))?;
        wire.redefine(&xml).await.map_err(libvirt).map(drop)
    }
}

/// What is seen of a server's disks that lie where they did before it was ours.
pub(super) fn in_place(home: &Home, is: &Description) -> Vec<String> {
    use adapters_libvirt::description::Source;
    let known: BTreeMap<&str, Uuid> = home
        .parts
        .disks
        .iter()
        .filter_map(|disk| Some((disk.in_place.as_deref()?, disk.id)))
        .collect();
    let paths = is.disks.iter().filter_map(|disk| match disk.source.as_ref()? {
        Source::File(path) | Source::Block(path) => Some(path.as_str()),
    });
    paths.filter_map(|path| known.get(path)).map(Uuid::to_string).collect()
}

/// Until its next start nothing is written down of its interfaces: they have what they had.
pub(super) fn as_found(home: &Home, record: &Record, seen: &mut Machine) {
    if record.adopted && record.ports.is_empty() {
        let nics = home.parts.nics.iter();
        seen.addresses = nics.flat_map(|nic| &nic.addresses).copied().collect();
        seen.addresses.sort_unstable();
    }
}
