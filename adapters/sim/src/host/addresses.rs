//! Other addresses of interfaces of servers in memory.

use commands::ports::{DriverFault, Report};
use domain::compute::server::{addresses::Found, home::Home, parts::Nic};
use ipnet::IpNet;
use serde_json::json;
use uuid::Uuid;

use super::{HostStep, SimHost, SimServer};

impl SimHost {
    /// The guest has other addresses; the report when it cannot, and has what it had.
    pub(super) fn change_addresses(
        &self,
        id: Uuid,
        home: &Home,
        (nic, found): (Uuid, &Found),
        number: u64,
    ) -> Result<Option<Report>, DriverFault> {
        let Some(nic) = home.parts.nics.iter().find(|known| known.id == nic) else {
            return Err(DriverFault::Rejected("it has no such interface".to_owned()));
        };
        let mut both = nic.addresses.clone();
        both.extend(found.new_to(nic));
        self.allow(id, nic, &both)?;
        match self.inside(id, nic, &found.addresses) {
            Ok(()) => {}
            Err(DriverFault::Rejected(reason)) => {
                self.inside(id, nic, &nic.addresses)?;
                self.allow(id, nic, &nic.addresses)?;
                let seen = self.seen(id, home)?;
                let body = json!({"number": number, "reason": reason, "seen": seen});
                return Ok(Some(Report { verb: "confirm-kept-addresses", body }));
            }
            Err(fault) => return Err(fault),
        }
        self.allow(id, nic, &found.addresses)?;
        Ok(None)
    }

    /// The guest has what it had.
    pub(super) fn restore_addresses(
        &self,
        id: Uuid,
        home: &Home,
        nic: Uuid,
        found: &Found,
    ) -> Result<(), DriverFault> {
        let Some(nic) = home.parts.nics.iter().find(|known| known.id == nic) else {
            return Ok(());
        };
        if !found.new_to(nic).is_empty() {
            self.inside(id, nic, &nic.addresses)?;
        }
        self.allow(id, nic, &nic.addresses)
    }

    /// It may use these addresses, and no others.
    fn allow(&self, id: Uuid, nic: &Nic, addresses: &[IpNet]) -> Result<(), DriverFault> {
        let done = |server: &SimServer| {
            let mut own = server.nics.iter().filter(|known| known.seen.mac == nic.mac);
            own.all(|known| known.addresses == addresses)
        };
        self.of(id, HostStep::Nics, done, |server| {
            for known in server.nics.iter_mut().filter(|known| known.seen.mac == nic.mac) {
                known.addresses = addresses.to_vec();
            }
        })
    }

    /// The guest has these addresses. One that does not run reads them when it is started.
    fn inside(&self, id: Uuid, nic: &Nic, addresses: &[IpNet]) -> Result<(), DriverFault> {
        let done = |server: &SimServer| {
            let mut own = server.nics.iter().filter(|known| known.seen.mac == nic.mac);
            !server.running || own.all(|known| known.inside == addresses)
        };
        self.of(id, HostStep::Addresses, done, |server| {
            for known in server.nics.iter_mut().filter(|known| known.seen.mac == nic.mac) {
                known.inside = addresses.to_vec();
            }
        })
    }
}
