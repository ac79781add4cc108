//! `skyledger reach`: carries bytes to and from a port of a guest. The host's agent runs it, in a network
//! namespace of its own.

use adapters_console::exit::Exit;
use adapters_kvm::network::reach;

use super::{Failure, grammar::ReachOptions};

pub(super) fn run(options: &ReachOptions) -> Result<Exit, Failure> {
    reach::carry(&options.addresses, options.port)?;
    Ok(Exit::Ok)
}
