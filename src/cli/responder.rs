//! `skyledger responder`: tells servers of a host their addresses when they ask. The host's agent runs it.

use adapters_console::exit::Exit;

use super::{Failure, grammar::ResponderOptions, runtime};
use crate::{config::Config, telemetry};

pub(super) fn run(options: &ResponderOptions) -> Result<Exit, Failure> {
    let _telemetry = telemetry::start(&Config::default())?;
    let responded = runtime()?.block_on(adapters_kvm::driver::respond(&options.data));
    responded.map_err(|fault| Failure::new(Exit::Fault, fault.to_string()))?;
    Ok(Exit::Ok)
}
