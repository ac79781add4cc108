//! Whether the processor runs guests here: found out by a start. A device file says nothing, and
//! neither does what libvirt says of its abilities: on a machine that is itself a guest both may be
//! there, and every guest dies.

use std::time::Duration;

use adapters_libvirt::{
    Connection, Leave, State,
    description::{Description, Virtualisation},
};
use commands::ports::DriverFault;
use domain::compute::placement::Architecture;
use uuid::Uuid;

use super::{fault::libvirt, wanted};

/// The machine that is started to find out, and never seen after.
const PROBE: Uuid = Uuid::from_u128(0x5e5_0000_0000_8000_8000_0000_0000_0001);
/// How long its firmware has to live.
const LIFE: Duration = Duration::from_secs(2);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(100);

/// Starts a machine without disks on the processor, and says whether it lived.
pub(super) async fn probe(
    wire: &Connection,
    architecture: Architecture,
) -> Result<Virtualisation, DriverFault> {
    let mut machine = Description::new("sk-probe", PROBE, 64 << 10, 1);
    wanted::board(&mut machine, architecture);
    machine.has_screen = false;
    machine.spare_slots = 0;
    // One that a crash left.
    end(wire).await?;
    let lives = match wire.run(&machine.xml()).await {
        Ok(domain) => {
            let began = tokio::time::Instant::now();
            loop {
                let state = wire.state(&domain).await;
                if !state.is_ok_and(|(state, _)| state == State::Running) {
                    break false;
                }
                if began.elapsed() > LIFE {
                    break true;
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        Err(fault) if fault.code().is_some() => {
            tracing::info!(%fault, "servers are emulated here: a start on the processor failed");
            false
        }
        Err(fault) => return Err(libvirt(fault)),
    };
    end(wire).await?;
    Ok(if lives { Virtualisation::Kvm } else { Virtualisation::Emulated })
}

async fn end(wire: &Connection) -> Result<(), DriverFault> {
    let Ok(domain) = wire.domain(PROBE).await else { return Ok(()) };
    // It is gone as soon as it does not run.
    let _ = wire.destroy(&domain).await;
    let _ = wire.undefine(&domain, Leave::default()).await;
    match wire.domain(PROBE).await {
        Ok(_) => Err(DriverFault::Transient("the machine sk-probe does not go".to_owned())),
        Err(_) => Ok(()),
    }
}
