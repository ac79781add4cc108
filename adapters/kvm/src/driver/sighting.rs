//! What the host is, as its agent says it to the log.

use std::collections::{BTreeMap, BTreeSet};

use adapters_libvirt::{Connection, description::Virtualisation};
use commands::ports::DriverFault;
use domain::compute::host::HostSighting;
use serde_json::Value;

use super::fault::libvirt;
use crate::{
    network::{Place, offload, uplink},
    observe::{self, Observed, Tree, devices::Kept},
};

/// Reads the kernel's files.
pub(super) async fn observe(
    kernel: Tree,
    mut kept: Kept,
    place: &Place,
) -> Result<Observed, DriverFault> {
    kept.interfaces.extend(with_address(place).await?);
    kept.switched = uplink::switched(place).await?;
    kept.offloads = offload::is_on(place).await;
    let look = tokio::task::spawn_blocking(move || observe::look(&kernel, &kept));
    let looked = look.await.map_err(|error| DriverFault::Unexpected(error.to_string()))?;
    Ok(looked?)
}

/// What the host is.
pub(super) async fn sighting(
    wire: &Connection,
    observed: Observed,
    virtualisation: Virtualisation,
    labels: BTreeSet<String>,
) -> Result<HostSighting, DriverFault> {
    let (qemu, own) =
        (wire.hypervisor_version().await.map_err(libvirt)?, wire.version().await.map_err(libvirt)?);
    let how = match virtualisation {
        Virtualisation::Kvm => "kvm",
        Virtualisation::Emulated => "emulated",
        Virtualisation::Test => "test",
    };
    Ok(HostSighting {
        architecture: observed.architecture,
        virtualisation: format!("qemu {qemu}, libvirt {own}, {how}"),
        labels,
        cells: observed.cells,
        devices: observed.devices,
        storages: BTreeSet::new(),
        volume_groups: BTreeMap::new(),
        carriers: None,
        machines: BTreeMap::new(),
    })
}

/// Interfaces that the host itself is reached by.
pub(super) async fn with_address(place: &Place) -> Result<BTreeSet<String>, DriverFault> {
    let links: Vec<Value> = place.json("ip", &["-j", "address", "show"]).await?;
    let has = |link: &Value| {
        let addresses = link["addr_info"].as_array();
        addresses.is_some_and(|all| all.iter().any(|one| one["scope"] == "global"))
    };
    let named = links.iter().filter(|link| has(link)).filter_map(|link| link["ifname"].as_str());
    Ok(named.map(str::to_owned).collect())
}
