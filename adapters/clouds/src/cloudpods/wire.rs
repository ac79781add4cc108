//! What a cluster answers, as far as it is read here. What is not named is not looked at; what is not there is
//! empty.

use serde::Deserialize;

/// What comes with a token.
#[derive(Debug, Deserialize)]
pub(super) struct TokenAnswer {
    pub(super) token: Token,
}

/// Who a token is of, and where the cluster's services answer.
#[derive(Debug, Deserialize)]
pub(super) struct Token {
    #[serde(default)]
    pub(super) catalog: Vec<Service>,
    #[serde(default)]
    pub(super) project: Named,
    #[serde(default)]
    pub(super) user: Named,
}

/// Something with an id and a name.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Named {
    #[serde(default)]
    pub(super) id: String,
    #[serde(default)]
    pub(super) name: String,
}

/// A service of the cluster.
#[derive(Debug, Deserialize)]
pub(super) struct Service {
    #[serde(default, rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) endpoints: Vec<Endpoint>,
}

/// Where a service answers.
#[derive(Debug, Deserialize)]
pub(super) struct Endpoint {
    #[serde(default)]
    pub(super) interface: String,
    #[serde(default, alias = "region_id")]
    pub(super) region: String,
    pub(super) url: String,
}

/// A page of machines.
#[derive(Debug, Deserialize)]
pub(super) struct ServersAnswer {
    #[serde(default)]
    pub(super) servers: Vec<Server>,
    #[serde(default)]
    pub(super) total: usize,
}

/// One machine.
#[derive(Debug, Deserialize)]
pub(super) struct ServerAnswer {
    pub(super) server: Server,
}

/// A machine of the cluster.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Server {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) status: String,
    #[serde(deserialize_with = "some")]
    pub(super) power_states: String,
    #[serde(deserialize_with = "some")]
    pub(super) os_arch: String,
    #[serde(deserialize_with = "some")]
    pub(super) bios: String,
    pub(super) vcpu_count: u32,
    pub(super) vmem_size: u64,
    #[serde(deserialize_with = "some")]
    pub(super) zone: String,
    #[serde(deserialize_with = "some")]
    pub(super) host_access_ip: String,
    #[serde(deserialize_with = "some")]
    pub(super) backup_host_id: String,
    #[serde(deserialize_with = "some")]
    pub(super) encrypt_key_id: String,
    pub(super) freezed: bool,
    #[serde(deserialize_with = "some")]
    pub(super) disks_info: Vec<Disk>,
    #[serde(deserialize_with = "some")]
    pub(super) nics: Vec<Nic>,
    #[serde(deserialize_with = "some")]
    pub(super) isolated_devices: Vec<Device>,
    #[serde(deserialize_with = "some")]
    pub(super) metadata: std::collections::BTreeMap<String, String>,
}

/// A disk of a machine.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Disk {
    pub(super) id: String,
    pub(super) index: u32,
    /// In MiB.
    pub(super) size: u64,
    pub(super) driver: String,
}

/// An interface of a machine.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Nic {
    pub(super) mac: String,
    #[serde(deserialize_with = "some")]
    pub(super) ip_addr: String,
    #[serde(deserialize_with = "some")]
    pub(super) ip6_addr: String,
}

/// A device of its host that a machine has.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Device {
    pub(super) dev_type: String,
    pub(super) model: String,
    pub(super) addr: String,
}

/// What is null is what is not there.
fn some<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
