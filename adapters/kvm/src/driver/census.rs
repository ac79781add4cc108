//! What is on a host of its servers, whoever asks: to be compared with what is to be there.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use domain::compute::server::Power;
use uuid::Uuid;

/// What is there of servers. Images that are kept are not: they are nobody's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// The servers that libvirt knows, and whether they run.
    pub servers: BTreeMap<Uuid, Power>,
    /// Processes of servers: libvirt's name of each, and how many it has.
    pub processes: BTreeMap<String, usize>,
    /// Files of disks, by name; such as are being made among them, and what leads to those that lie elsewhere.
    pub disks: BTreeSet<String>,
    /// Discs in servers' drives, by the name of the file.
    pub cdroms: BTreeSet<String>,
    /// Files of seeds, by name.
    pub seeds: BTreeSet<String>,
    /// Servers of which something is written down, by the name of the file.
    pub records: BTreeSet<String>,
    /// Interfaces of servers and what they are led through, by name.
    pub interfaces: BTreeSet<String>,
    /// Interfaces that have rules.
    pub guarded: BTreeSet<String>,
    /// Interfaces whose bytes are counted.
    pub counted: BTreeSet<String>,
    /// Bridges that were made for servers.
    pub bridges: BTreeSet<String>,
    /// Bridges of Open vSwitch that were made for virtual functions of servers.
    pub switches: BTreeSet<String>,
    /// Whether something tells servers their addresses.
    pub responder: bool,
}

/// The servers that have a process with files in this folder, by libvirt's name. Another host on the
/// same machine has another folder.
pub(super) fn processes(folder: &Path) -> BTreeMap<String, usize> {
    let folder = folder.as_os_str().as_encoded_bytes();
    let mut found = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir("/proc") else { return found };
    for entry in entries.flatten() {
        // One that has ended meanwhile is none.
        let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
        if !line.windows(folder.len()).any(|part| part == folder) {
            continue;
        }
        let mut words = line.split(|byte| *byte == 0);
        let is_qemu = words.next().is_some_and(|program| {
            String::from_utf8_lossy(program).rsplit('/').next().unwrap_or("").starts_with("qemu-")
        });
        let named = words.find_map(|word| {
            let word = std::str::from_utf8(word).ok()?.strip_prefix("guest=")?;
            Some(word.split(',').next().unwrap_or_default().to_owned())
        });
        if let Some(name) = named.filter(|name| is_qemu && name.starts_with("sk-")) {
            *found.entry(name).or_default() += 1;
        }
    }
    found
}
