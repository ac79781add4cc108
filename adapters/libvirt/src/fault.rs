//! Why a call came to nothing.

use std::{fmt, io, time::Duration};

/// `virErrorNumber` of libvirt. Numbers stay what they are; unknown ones are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Code(pub i32);

impl Code {
    /// The driver cannot do it.
    pub const NO_SUPPORT: Self = Self(3);
    /// An argument is wrong.
    pub const INVALID_ARGUMENT: Self = Self(8);
    /// The hypervisor was asked and failed.
    pub const OPERATION_FAILED: Self = Self(9);
    /// The XML says what cannot be.
    pub const XML_ERROR: Self = Self(27);
    /// The XML does not parse.
    pub const XML_DETAIL: Self = Self(35);
    /// There is a domain of that name or UUID already.
    pub const DOMAIN_EXISTS: Self = Self(28);
    /// There is no such domain.
    pub const NO_DOMAIN: Self = Self(42);
    /// The domain's state does not allow it: as a rule it is in the wanted state already.
    pub const OPERATION_INVALID: Self = Self(55);
    /// What the XML asks for is not to be had here.
    pub const CONFIG_UNSUPPORTED: Self = Self(67);
    /// Something held the domain for too long.
    pub const OPERATION_TIMEOUT: Self = Self(68);
    /// There is no such snapshot.
    pub const NO_SNAPSHOT: Self = Self(72);
    /// A job was broken off on request.
    pub const OPERATION_ABORTED: Self = Self(78);
    /// The domain cannot do it.
    pub const OPERATION_UNSUPPORTED: Self = Self(84);
    /// The guest's agent does not answer.
    pub const AGENT_UNRESPONSIVE: Self = Self(86);
    /// Somebody else has it.
    pub const RESOURCE_BUSY: Self = Self(87);
    /// There is no such checkpoint.
    pub const NO_CHECKPOINT: Self = Self(103);
    /// No backup of the domain goes on.
    pub const NO_BACKUP: Self = Self(104);
    /// The domain has no such device.
    pub const DEVICE_MISSING: Self = Self(99);
}

impl fmt::Display for Code {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// Why a call came to nothing. The daemon's own refusal is told apart from a daemon that is not
/// there: after the latter nobody knows whether the call was carried out.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Fault {
    /// The daemon said no.
    #[error("libvirt: {message} (code {code}, domain {origin})")]
    Refused {
        /// Which error.
        code: Code,
        /// Which part of libvirt says so: `virErrorDomain`.
        origin: i32,
        /// In its words.
        message: String,
    },
    /// The socket cannot be opened.
    #[error("libvirt does not listen at {socket}: {reason}")]
    Unreachable {
        /// Where.
        socket: String,
        /// Why.
        reason: String,
    },
    /// The connection ended before the answer came.
    #[error("the connection to libvirt ended: {0}")]
    Closed(String),
    /// No answer came in time.
    #[error("libvirt has not answered within {} s", .0.as_secs_f64())]
    Late(Duration),
    /// The daemon wants to be convinced of who asks, which this client does not do.
    #[error("libvirt asks for authentication (kind {0}); let it trust its socket's permissions")]
    Authentication(i32),
    /// What came is not what the protocol says.
    #[error("libvirt's answer does not read: {0}")]
    Malformed(&'static str),
    /// What is to be sent is longer than the protocol allows.
    #[error("{0} is longer than libvirt takes")]
    TooLong(&'static str),
}

impl Fault {
    /// What the daemon said no with.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the daemon said no with this.
    pub fn is(&self, code: Code) -> bool {
        self.code() == Some(code)
    }

    /// Whether it is known that the call was not carried out.
    pub fn is_answer(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::TooLong(_) | Self::Unreachable { .. })
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Closed(error.to_string())
    }
}
