//! A machine that others run comes to a host in memory: nothing is written here, and where it would be is said, or
//! where a test has something that is written.

use core::net::Ipv4Addr;

use commands::ports::{DriverFault, HostTask, Report};
use domain::compute::move_in::{Landing, LandingDisk, MoveIn, Order};
use serde_json::json;

use super::{HostStep, SimHost, World, kept::read};

/// The port that nobody listens at.
const PORT: u16 = 21_800;

impl SimHost {
    /// An order of a move.
    pub(super) fn carry_out_of_move_in(&self, task: &HostTask) -> Result<Report, DriverFault> {
        let (state, order): (MoveIn, Order) = (read(&task.subject)?, read(&task.order)?);
        let number = task.key.number;
        let (host, id) = (self.host, task.key.stream.id.clone());
        if order != (Order::Prepare {}) {
            let lands =
                |world: &World| world.landings.get(&host).is_some_and(|all| all.contains(&id));
            self.change(
                HostStep::Close,
                |world| !lands(world),
                |world| {
                    world.landings.entry(host).or_default().remove(&id);
                },
            )?;
            return Ok(Report { verb: "confirm-closed", body: json!({"number": number}) });
        }
        let disks = state.machine().map(|machine| machine.disks.clone()).unwrap_or_default();
        let disk = |index: u32| LandingDisk { index, name: format!("disk-{index}") };
        let (at, filling) = match self.hosts.world().takes_in {
            Some((at, filling)) => (at, Some(filling)),
            None => ((Ipv4Addr::LOCALHOST, PORT).into(), None),
        };
        let landing = Landing {
            address: at.ip(),
            port: at.port(),
            filling,
            disks: disks.iter().map(|one| disk(one.index)).collect(),
        };
        self.change(
            HostStep::Receive,
            |_| false,
            |world| {
                world.landings.entry(host).or_default().insert(id.clone());
            },
        )?;
        Ok(Report { verb: "confirm-prepared", body: json!({"number": number, "landing": landing}) })
    }
}
