//! What went wrong on a host, as the runner of orders understands it: something that may go away by
//! itself is tried again, everything else waits for a person.

use std::error::Error;

use adapters_libvirt::{Code, Fault};
use commands::ports::DriverFault;

use crate::{network::NetworkFault, observe::ObserveFault, storage::StorageFault, tool::ToolFault};

/// An error with all that caused it.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let said = inner.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = inner.source();
    }
    text
}

/// What libvirt says, or that it says nothing.
pub(super) fn libvirt(fault: Fault) -> DriverFault {
    let said = fault.to_string();
    match fault {
        Fault::Refused {
            code:
                Code::XML_ERROR
                | Code::XML_DETAIL
                | Code::CONFIG_UNSUPPORTED
                | Code::NO_SUPPORT
                | Code::INVALID_ARGUMENT,
            ..
        }
        | Fault::TooLong(_)
        | Fault::Authentication(_) => DriverFault::Rejected(said),
        Fault::Malformed(_) => DriverFault::Unexpected(said),
        // A machine that was found and is not there any more (`NO_DOMAIN`) went meanwhile: who looks again sees that.
        _ => DriverFault::Transient(said),
    }
}

fn tool(fault: &ToolFault, said: String) -> DriverFault {
    match fault {
        // Somebody has to install it.
        ToolFault::Start { .. } => DriverFault::Rejected(said),
        ToolFault::Nonsense { .. } => DriverFault::Unexpected(said),
        ToolFault::Failed { .. } | ToolFault::Late { .. } => DriverFault::Transient(said),
    }
}

impl From<StorageFault> for DriverFault {
    fn from(fault: StorageFault) -> Self {
        let said = chain(&fault);
        match &fault {
            StorageFault::Tool(inner) => tool(inner, said),
            StorageFault::File { .. } | StorageFault::Silent(_) => Self::Transient(said),
            StorageFault::Missing(_)
            | StorageFault::Differs { .. }
            | StorageFault::Smaller { .. }
            | StorageFault::Unfit(_) => Self::Rejected(said),
        }
    }
}

impl From<NetworkFault> for DriverFault {
    fn from(fault: NetworkFault) -> Self {
        let said = chain(&fault);
        match &fault {
            NetworkFault::Tool(inner) => tool(inner, said),
            NetworkFault::Differs { .. } => Self::Transient(said),
            NetworkFault::Impossible(_) => Self::Rejected(said),
        }
    }
}

impl From<ObserveFault> for DriverFault {
    fn from(fault: ObserveFault) -> Self {
        Self::Unexpected(chain(&fault))
    }
}
