//! What the agent writes down of its servers on the host itself: what the kernel's tables are made
//! from, and what cannot be seen of a server that runs.
//!
//! ```text
//! <folder>/servers/<server id>.json     a server's last order, its interfaces, its last restart
//! <folder>/bridges/<name>               a bridge that was made for them: empty
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use domain::{
    compute::storage::StorageId,
    network::{
        bandwidth::Bandwidth,
        mac::Mac,
        quota::{Quota, Traffic},
        security_group::Rule,
    },
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::fs;
use uuid::Uuid;

use super::cpus::Cpus;
use crate::{
    network::{dhcp::Told, uplink::Uplink},
    storage::{StorageFault, files},
};

/// What is written down of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The number of the last order that was begun.
    #[serde(default)]
    pub(super) number: u64,
    /// Its interfaces.
    #[serde(default)]
    pub(super) ports: Vec<Port>,
    /// Its interfaces that are virtual functions with another end on the host: those ends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) functions: Vec<FunctionPort>,
    /// The number of the order by which its root disk was made again last.
    #[serde(default)]
    pub(super) rebuilt: Option<u64>,
    /// Disks that were made what a backup says, with the number of the order that was done by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) restored: BTreeMap<Uuid, u64>,
    /// Snapshots that disks were taken back to, with the number of the order that was done by last.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) rolled_back: BTreeMap<Uuid, u64>,
    /// Whether its guest may have been told to stand still, and not to go on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) frozen: bool,
    /// The last restart that was begun.
    #[serde(default)]
    pub(super) restart: Option<Restart>,
    /// Devices of the host that were made or set for it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) devices: BTreeSet<String>,
    /// Devices of the IOMMU groups of its own that were taken from the host's drivers: the driver of each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) taken: BTreeMap<String, String>,
    /// The virtual functions of cards that were chosen to be its vGPUs, by the ids of those.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) vgpus: BTreeMap<String, String>,
    /// Whether it was somebody's machine, and is ours without having been made here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) adopted: bool,
    /// What it has of the host's CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cpus: Option<Cpus>,
    /// Volumes that others reach as well and that may be active for it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) volumes: BTreeSet<(StorageId, Uuid)>,
}

impl Port {
    /// Whether what was counted of it before goes on: it was neither counted anew nor elsewhere since.
    pub(super) fn goes_on(&self, before: &Self) -> bool {
        let has_stayed = before.moves.is_none() || before.moves == self.moves;
        self.resets == before.resets && has_stayed
    }
}

fn is_nothing(traffic: &Traffic) -> bool {
    *traffic == Traffic::default()
}

/// An interface of a server, as its host has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Port {
    /// Its name on the host.
    pub(super) tap: String,
    /// The bridge that it is plugged into.
    pub(super) bridge: String,
    /// What joins that to its segment elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) uplink: Option<Uplink>,
    /// Largest packet, in bytes.
    pub(super) mtu: u32,
    /// Its hardware address.
    pub(super) mac: Mac,
    /// Its addresses, with the length of their subnet's prefix.
    pub(super) addresses: Vec<IpNet>,
    /// How fast it may send and be sent to.
    #[serde(default, skip_serializing_if = "Bandwidth::is_unlimited")]
    pub(super) bandwidth: Bandwidth,
    /// How many bytes may pass; not counted when it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) quota: Option<Quota>,
    /// How often its bytes were counted anew.
    #[serde(default)]
    pub(super) resets: u64,
    /// To how many hosts it has come; none where that was not written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) moves: Option<u64>,
    /// How many had passed on other hosts.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub(super) carried: Traffic,
    /// How many had passed here when this was looked at last: where the kernel begins when it has forgotten.
    #[serde(default)]
    pub(super) traffic: Traffic,
    /// The security groups that guard it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) groups: BTreeSet<Uuid>,
    /// All their rules; none when nothing is kept from it but spoofing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rules: Option<BTreeSet<Rule>>,
    /// What it is told when it asks; none when nobody answers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) told: Option<Told>,
}

/// The other end of a virtual function that is an interface of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FunctionPort {
    /// Its name on the host.
    pub(super) representor: String,
    /// The segment.
    pub(super) segment: Uuid,
    /// What carries it.
    pub(super) uplink: Uplink,
    /// Largest packet, in bytes.
    pub(super) mtu: u32,
    /// The function's hardware address.
    pub(super) mac: Mac,
    /// Its addresses, with the length of their subnet's prefix.
    pub(super) addresses: Vec<IpNet>,
    /// All rules of its security groups; none when nothing is kept from it but spoofing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rules: Option<BTreeSet<Rule>>,
    /// The security groups that guard it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) groups: BTreeSet<Uuid>,
}

/// A restart that was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Restart {
    /// By the order of this number.
    pub(super) number: u64,
    /// libvirt's number of the machine that is to stop: the one that runs after it has another.
    pub(super) machine: Option<u32>,
}

/// The folder of what is written down.
#[derive(Clone, Debug)]
pub(super) struct Records {
    servers: PathBuf,
    bridges: PathBuf,
}

impl Records {
    /// Those of a host whose folders are there.
    pub(super) fn at(folder: &Path) -> Self {
        Self { servers: folder.join("servers"), bridges: folder.join("bridges") }
    }

    /// Makes the folders that are not there.
    pub(super) async fn open(folder: &Path) -> Result<Self, StorageFault> {
        let own = Self::at(folder);
        for folder in [&own.servers, &own.bridges] {
            fs::create_dir_all(folder).await.map_err(StorageFault::file("cannot make", folder))?;
        }
        Ok(own)
    }

    /// The folder of servers: it has changed whenever something else is written down of one.
    pub(super) fn servers(&self) -> &Path {
        &self.servers
    }

    fn path(&self, server: Uuid) -> PathBuf {
        self.servers.join(format!("{server}.json"))
    }

    /// What is written down of a server; none when nothing is.
    pub(super) async fn read(&self, server: Uuid) -> Result<Option<Record>, StorageFault> {
        read(&self.path(server)).await
    }

    /// Writes down what is true of a server from now on.
    pub(super) async fn write(&self, server: Uuid, record: &Record) -> Result<(), StorageFault> {
        let path = self.path(server);
        if read(&path).await.is_ok_and(|there| there.as_ref() == Some(record)) {
            return Ok(());
        }
        let part = files::part(&path);
        let text = serde_json::to_vec(record).unwrap_or_default();
        fs::write(&part, text).await.map_err(StorageFault::file("cannot write", &part))?;
        files::put_in_place(&part, &path).await
    }

    /// Forgets a server.
    pub(super) async fn remove(&self, server: Uuid) -> Result<(), StorageFault> {
        let path = self.path(server);
        files::remove(&files::part(&path)).await?;
        files::remove(&path).await
    }

    /// Everything that is written down of servers.
    pub(super) async fn all(&self) -> Result<BTreeMap<Uuid, Record>, StorageFault> {
        let mut records = BTreeMap::new();
        for name in names(&self.servers).await? {
            let id = name.strip_suffix(".json").and_then(|id| id.parse().ok());
            if let Some(id) = id
                && let Some(record) = self.read(id).await?
            {
                records.insert(id, record);
            }
        }
        Ok(records)
    }

    /// The servers that were somebody's machines.
    pub(super) async fn adopted(&self) -> Result<BTreeSet<Uuid>, StorageFault> {
        let all = self.all().await?.into_iter();
        Ok(all.filter(|(_, record)| record.adopted).map(|(server, _)| server).collect())
    }

    /// Notes that a bridge is about to be made.
    pub(super) async fn claim_bridge(&self, name: &str) -> Result<(), StorageFault> {
        let path = self.bridges.join(name);
        fs::write(&path, "").await.map_err(StorageFault::file("cannot write", &path))?;
        files::sync(&self.bridges).await
    }

    /// Notes that a bridge that was made is gone.
    pub(super) async fn forget_bridge(&self, name: &str) -> Result<(), StorageFault> {
        files::remove(&self.bridges.join(name)).await
    }

    /// The bridges that were made.
    pub(super) async fn bridges(&self) -> Result<Vec<String>, StorageFault> {
        names(&self.bridges).await
    }
}

async fn read(path: &Path) -> Result<Option<Record>, StorageFault> {
    let bytes = match fs::read(path).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(StorageFault::file("cannot read", path))?,
    };
    let read = serde_json::from_slice(&bytes);
    read.map(Some).map_err(|error| StorageFault::Unfit(format!("{}: {error}", path.display())))
}

/// The names of a folder's entries, sorted; a file that is being made has none yet.
pub(super) async fn names(folder: &Path) -> Result<Vec<String>, StorageFault> {
    let fault = || StorageFault::file("cannot list", folder);
    let mut entries = fs::read_dir(folder).await.map_err(fault())?;
    let mut names = Vec::new();
    while let Some(entry) = entries.next_entry().await.map_err(fault())? {
        names.extend(entry.file_name().into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}
