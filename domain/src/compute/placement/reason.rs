//! Why a host does not take a server, with what was asked and what is there.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{facts::Architecture, host::ServerId};

/// Why a host does not take a server. Codes are stable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "code", rename_all = "kebab-case")]
pub enum Reason {
    /// No agent works for it yet.
    AgentNotJoined,
    /// Its agent is not heard.
    AgentUnreachable,
    /// It has this server already.
    AlreadyHere,
    /// A hard rule of an affinity group keeps its members apart.
    Apart {
        /// The group.
        group: Uuid,
        /// How many of it are here.
        here: u32,
    },
    /// Another instruction set.
    Architecture {
        /// Asked for.
        asked: Architecture,
        /// The host's.
        has: Architecture,
    },
    /// It has no bridge that carries a segment of the server.
    Carrier {
        /// Which.
        missing: String,
    },
    /// No set of cells of the allowed size holds the parts.
    Cells {
        /// Into how many parts it was cut, the most that are allowed and possible.
        cells: u32,
        /// How many of them are at least as large as said below.
        asked: u32,
        /// How many cells hold a part of that size.
        fitting: u32,
        /// CPUs of such a part: shared virtual ones, or cores for itself.
        cpus: u32,
        /// How many threads such cores have; 0 when it shares CPUs.
        threads: u32,
        /// Memory of such a part, in whole pages.
        memory_mib: u64,
    },
    /// Too little memory in a cell.
    CellMemory {
        /// The cell.
        cell: u32,
        /// Asked for.
        asked_mib: u64,
        /// There.
        free_mib: u64,
    },
    /// Too few huge pages in a cell.
    CellPages {
        /// The cell.
        cell: u32,
        /// Their size.
        size_kib: u32,
        /// Asked for.
        asked: u64,
        /// There.
        free: u64,
    },
    /// Too few shared virtual CPUs in a cell.
    CellVcpus {
        /// The cell.
        cell: u32,
        /// Asked for.
        asked: u32,
        /// There.
        free: u32,
    },
    /// Too few cores that nobody uses alone and that are not reserved.
    Cores {
        /// Asked for.
        asked: u32,
        /// There, of those with the most to give, without squeezing what the others share in a cell.
        free: u32,
        /// How many threads these have.
        threads: u32,
    },
    /// A CPU is another server's alone, or its core is.
    CpuHeld {
        /// The CPU.
        cpu: u32,
        /// Whose.
        server: ServerId,
    },
    /// A CPU, or its core's other thread, is reserved for the host.
    CpuReserved {
        /// The CPU.
        cpu: u32,
    },
    /// The host has no such CPU.
    CpuUnknown {
        /// The CPU.
        cpu: u32,
    },
    /// Too few devices.
    Devices {
        /// What is asked for.
        kind: String,
        /// Which ones; any when none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
        /// On which wire; on any when none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        carrier: Option<String>,
        /// Whether the host must have their other ends.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        represented: bool,
        /// Asked for.
        asked: u32,
        /// There.
        free: u32,
    },
    /// A device is not free, or a part of its IOMMU group is not.
    DeviceHeld {
        /// The device.
        device: String,
    },
    /// It takes no servers.
    Disabled,
    /// The request excludes it.
    Excluded,
    /// It does not reach something.
    Label {
        /// What.
        missing: String,
    },
    /// It is being worked on.
    Maintenance,
    /// Too little memory in all.
    Memory {
        /// Asked for.
        asked_mib: u64,
        /// There.
        free_mib: u64,
    },
    /// The request is for other hosts.
    NotNamed,
    /// Too few huge pages in all.
    Pages {
        /// Their size.
        size_kib: u32,
        /// Asked for.
        asked: u64,
        /// There.
        free: u64,
    },
    /// The CPUs that are given lie in too many cells.
    PinnedCells {
        /// Allowed.
        allowed: u32,
        /// In how many they lie.
        cells: u32,
    },
    /// Too few CPUs would be left for the servers that share them.
    Squeezed {
        /// CPUs it would take alone, idle siblings among them.
        asked: u32,
        /// CPUs that can be taken.
        free: u32,
    },
    /// It has a tag that the request forbids.
    TagForbidden {
        /// Which.
        tag: String,
    },
    /// It lacks a tag.
    TagMissing {
        /// Which.
        tag: String,
    },
    /// A hard rule of an affinity group keeps its members together.
    Together {
        /// The group.
        group: Uuid,
        /// How many of it are elsewhere, while none is here.
        elsewhere: u32,
    },
    /// Too few USB devices that hang on nothing else that is asked for.
    UsbDevices {
        /// Asked for.
        asked: u32,
        /// What is left beside their controllers.
        left: u32,
    },
    /// Too few shared virtual CPUs in all.
    Vcpus {
        /// Asked for.
        asked: u32,
        /// There.
        free: u32,
    },
}

impl Reason {
    /// Its stable code, as in `code`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::AgentNotJoined => "agent-not-joined",
            Self::AgentUnreachable => "agent-unreachable",
            Self::AlreadyHere => "already-here",
            Self::Apart { .. } => "apart",
            Self::Architecture { .. } => "architecture",
            Self::Carrier { .. } => "carrier",
            Self::Cells { .. } => "cells",
            Self::CellMemory { .. } => "cell-memory",
            Self::CellPages { .. } => "cell-pages",
            Self::CellVcpus { .. } => "cell-vcpus",
            Self::Cores { .. } => "cores",
            Self::CpuHeld { .. } => "cpu-held",
            Self::CpuReserved { .. } => "cpu-reserved",
            Self::CpuUnknown { .. } => "cpu-unknown",
            Self::Devices { .. } => "devices",
            Self::DeviceHeld { .. } => "device-held",
            Self::Disabled => "disabled",
            Self::Excluded => "excluded",
            Self::Label { .. } => "label",
            Self::Maintenance => "maintenance",
            Self::Memory { .. } => "memory",
            Self::NotNamed => "not-named",
            Self::Pages { .. } => "pages",
            Self::PinnedCells { .. } => "pinned-cells",
            Self::Squeezed { .. } => "squeezed",
            Self::TagForbidden { .. } => "tag-forbidden",
            Self::TagMissing { .. } => "tag-missing",
            Self::Together { .. } => "together",
            Self::UsbDevices { .. } => "usb-devices",
            Self::Vcpus { .. } => "vcpus",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AgentNotJoined => f.write_str("its agent has not joined"),
            Self::AgentUnreachable => f.write_str("its agent is not heard"),
            Self::AlreadyHere => f.write_str("it has this server already"),
            Self::Apart { group, here } => {
                write!(f, "{here} of group {group} are here, which is to be kept apart")
            }
            Self::Architecture { asked, has } => write!(f, "{has:?} is not {asked:?}"),
            Self::Carrier { missing } => {
                write!(f, "it has no {missing}, which carries a segment of the server")
            }
            Self::Cells { cells, asked, fitting, cpus, memory_mib, .. } => write!(
                f,
                "in {cells} parts, {asked} of at least {cpus} CPUs and {memory_mib} MiB, which \
                 {fitting} cells hold"
            ),
            Self::CellMemory { cell, asked_mib, free_mib } => {
                write!(f, "{asked_mib} MiB of cell {cell}, where {free_mib} are free")
            }
            Self::CellPages { cell, size_kib, asked, free } => {
                write!(f, "{asked} pages of {size_kib} KiB of cell {cell}, where {free} are free")
            }
            Self::CellVcpus { cell, asked, free } => {
                write!(f, "{asked} virtual CPUs of cell {cell}, where {free} are free")
            }
            Self::Cores { asked, free, threads } => {
                write!(f, "{asked} cores of {threads} threads, of which {free} are free")
            }
            Self::CpuHeld { cpu, server } => write!(f, "CPU {cpu} is server {server}'s alone"),
            Self::CpuReserved { cpu } => write!(f, "CPU {cpu} is the host's"),
            Self::CpuUnknown { cpu } => write!(f, "there is no CPU {cpu}"),
            Self::Devices { kind, model, carrier, represented, asked, free } => {
                let model = model.as_deref().unwrap_or("any model");
                let on = carrier.as_ref().map_or(String::new(), |one| format!(" on {one}"));
                let by = if *represented { " with a representor" } else { "" };
                write!(f, "{asked} {kind} of {model}{on}{by}, of which {free} are free")
            }
            Self::DeviceHeld { device } => write!(f, "device {device} is not free"),
            Self::Disabled => f.write_str("it is disabled"),
            Self::Excluded => f.write_str("the request excludes it"),
            Self::Label { missing } => write!(f, "it does not reach {missing}"),
            Self::Maintenance => f.write_str("it is in maintenance"),
            Self::Memory { asked_mib, free_mib } => {
                write!(f, "{asked_mib} MiB, of which {free_mib} are free")
            }
            Self::NotNamed => f.write_str("the request names other hosts"),
            Self::Pages { size_kib, asked, free } => {
                write!(f, "{asked} pages of {size_kib} KiB, of which {free} are free")
            }
            Self::PinnedCells { allowed, cells } => {
                write!(f, "the CPUs lie in {cells} cells, and {allowed} are allowed")
            }
            Self::Squeezed { asked, free } => {
                write!(f, "{asked} CPUs for itself, while the others can spare {free}")
            }
            Self::TagForbidden { tag } => write!(f, "it has the tag {tag}"),
            Self::TagMissing { tag } => write!(f, "it has no tag {tag}"),
            Self::Together { group, elsewhere } => {
                write!(f, "{elsewhere} of group {group}, to be kept together, are elsewhere")
            }
            Self::UsbDevices { asked, left } => write!(
                f,
                "{asked} USB devices, of which {left} hang on no controller that is asked for"
            ),
            Self::Vcpus { asked, free } => {
                write!(f, "{asked} virtual CPUs, of which {free} are free")
            }
        }
    }
}
