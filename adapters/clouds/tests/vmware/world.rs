//! A stand-in of its own for one test, with disks that machines are moved to.

use std::sync::Arc;

use adapters_clouds::{
    testing::{
        nbd::Shelf,
        vcenter::{PASSWORD, VCenter},
    },
    vmware::Vmware,
};
use commands::ports::{Access, DriverFault, Provider, Report, Task, Unpaced};
use domain::{
    kernel::{OrderKey, StreamId},
    observation::Origin,
};
use serde_json::{Value, json};
use uuid::Uuid;

/// The first disk of each machine, as it is numbered there.
pub(crate) const ROOT: u32 = 2000;
/// The second.
pub(crate) const DATA: u32 = 2001;
pub(crate) const MIB: usize = 1 << 20;

pub(crate) struct World {
    pub(crate) vcenter: VCenter,
    pub(crate) vmware: Vmware,
    pub(crate) access: Access,
    pub(crate) shelf: Shelf,
}

/// Access to it by this credential.
pub(crate) fn access(vcenter: &VCenter, credential: Value) -> Access {
    Access {
        account: Uuid::from_u128(7),
        endpoint: Some(vcenter.endpoint().into()),
        credential,
        identity: None,
        pace: Arc::new(Unpaced),
    }
}

impl World {
    /// None where the stand-in was left out.
    pub(crate) async fn new() -> Option<Self> {
        let vcenter = VCenter::start().await.unwrap()?;
        let access = access(&vcenter, json!({"user": "mover", "password": PASSWORD}));
        let shelf = Shelf::start().await.unwrap();
        Some(Self { vcenter, vmware: Vmware::new(), access, shelf })
    }

    /// A machine with two disks, of 3 and 1 MiB, that have something on them.
    pub(crate) async fn machine(&self, name: &str) -> String {
        let ask = json!({"Name": name, "Mib": [3, 1], "Addresses": ["10.0.0.77", "fe80::1"]});
        let id = self.vcenter.machine(ask).await.unwrap();
        self.write(&id, ROOT, 0, noise(1, 2 * MIB + 7)).await;
        self.write(&id, DATA, 4_096, noise(2, 65_536)).await;
        id
    }

    /// Its system writes.
    pub(crate) async fn write(&self, id: &str, disk: u32, at: usize, bytes: Vec<u8>) {
        self.vcenter.write(id, disk, at as u64, bytes).await.unwrap();
    }

    /// Disks of a host that are full of something else.
    pub(crate) fn land(&self) {
        self.shelf.put("root", 3 * MIB, 0xee);
        self.shelf.put("data", MIB, 0xee);
    }

    pub(crate) fn landing(&self, filling: u128) -> Value {
        json!({
            "address": self.shelf.at().ip(), "port": self.shelf.at().port(),
            "filling": Uuid::from_u128(filling),
            "disks": [{"index": ROOT, "name": "root"}, {"index": DATA, "name": "data"}],
        })
    }

    /// An order of a server, or of a move where it says something.
    pub(crate) fn task(&self, id: &str, mut order: Value) -> Task {
        let kind = if order["data"].is_null() { "server" } else { "move-in" };
        if kind == "server" {
            order["data"] = json!({});
        }
        Task {
            kind,
            key: OrderKey { stream: StreamId::new(kind, Uuid::from_u128(9)), number: 1 },
            order,
            origin: Origin {
                provider: "vmware".into(),
                account: self.access.account,
                region: None,
                external_id: id.into(),
            },
        }
    }

    pub(crate) async fn order(&self, id: &str, order: Value) -> Result<Report, DriverFault> {
        self.vmware.carry_out(&self.access, &self.task(id, order)).await
    }

    pub(crate) async fn copy(&self, id: &str, filling: u128) -> Result<Report, DriverFault> {
        let order = json!({"type": "copy", "data": {"landing": self.landing(filling)}});
        self.order(id, order).await
    }

    pub(crate) async fn stop(
        &self,
        id: &str,
        ask: bool,
        filling: u128,
    ) -> Result<Report, DriverFault> {
        let landing = self.landing(filling);
        let data = json!({"shut_down": ask, "disks": [ROOT, DATA], "landing": landing});
        self.order(id, json!({"type": "stop", "data": data})).await
    }

    pub(crate) async fn release(&self, id: &str, start: bool) -> Result<Report, DriverFault> {
        self.order(id, json!({"type": "release", "data": {"start": start}})).await
    }

    /// Whether both disks of the host are those of the machine, byte for byte.
    pub(crate) async fn is_same(&self, id: &str) -> bool {
        let root = self.vcenter.read(id, ROOT).await.unwrap() == self.shelf.read("root");
        root && self.vcenter.read(id, DATA).await.unwrap() == self.shelf.read("data")
    }

    pub(crate) async fn of(&self, id: &str, what: &str) -> Value {
        self.vcenter.of(id).await.unwrap()[what].clone()
    }
}

/// Bytes that are not the same anywhere.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(next).collect()
}
