//! The runs of `lvm` there are, and its answers.
//!
//! Nothing here chooses: each run is a line that a person could type. Sizes are in bytes, and so are
//! answers. A group and its volumes are always named, so that no run touches what was not named.

use std::{collections::BTreeSet, time::Duration};

use domain::compute::storage::{SNAPSHOT_CHUNK_BYTES, lease::Mode};
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::tool::{Tool, ToolFault};

/// How long a run may take: a path to a disk that was lost is waited for by the kernel.
const LIMIT: Duration = Duration::from_mins(2);
/// Longest name of a group, in bytes: LVM's own limit.
const NAME_BYTES_MAX: usize = 127;

/// `lvm`, with settings of its own where there are any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lvm {
    config: Option<String>,
}

/// A volume group, as `vgs` says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Group {
    /// Its name on this host.
    #[serde(rename = "vg_name")]
    pub name: String,
    /// How large it is, in bytes.
    #[serde(rename = "vg_size", deserialize_with = "bytes")]
    pub size_bytes: u64,
    /// What no volume has, in bytes.
    #[serde(rename = "vg_free", deserialize_with = "bytes")]
    pub free_bytes: u64,
    /// What volumes are cut in, in bytes.
    #[serde(rename = "vg_extent_size", deserialize_with = "bytes")]
    pub extent_bytes: u64,
    /// Its tags.
    #[serde(rename = "vg_tags", deserialize_with = "tags")]
    pub tags: BTreeSet<String>,
    /// How hosts that share it lock it, for instance `sanlock`; empty when they do not.
    #[serde(rename = "vg_lock_type")]
    pub lock: String,
}

/// A logical volume, as `lvs` says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Volume {
    /// Its name in its group.
    #[serde(rename = "lv_name")]
    pub name: String,
    /// How large it is, in bytes.
    #[serde(rename = "lv_size", deserialize_with = "bytes")]
    pub size_bytes: u64,
    /// Its tags.
    #[serde(rename = "lv_tags", deserialize_with = "tags")]
    pub tags: BTreeSet<String>,
}

fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map_err(|_| D::Error::custom(format!("{text}: is no size in bytes")))
}

fn tags<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeSet<String>, D::Error> {
    let text = String::deserialize(from)?;
    Ok(text.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned).collect())
}

/// Whether a group can be called so: what LVM allows, and nothing that reads as an option.
pub fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "+_.-".contains(c);
    let first = name.chars().next().is_some_and(|c| c != '-' && c != '.');
    first && name.len() <= NAME_BYTES_MAX && name.chars().all(allowed)
}

impl Lvm {
    /// With settings over those of the host's `lvm.conf`, as `lvm --config` takes them.
    pub fn with(config: Option<String>) -> Self {
        Self { config }
    }

    fn tool(&self, command: &str, words: &[&str]) -> Tool {
        let config = self.config.iter().flat_map(|config| ["--config", config]);
        let words = std::iter::once(command).chain(config).chain(words.iter().copied());
        Tool::new("lvm", words).limit(LIMIT)
    }

    fn report(&self, command: &str, columns: &str, of: &[&str]) -> Tool {
        let how = ["--reportformat", "json", "--units", "b", "--nosuffix", "--options", columns];
        self.tool(command, &[&how, of].concat())
    }

    /// Lists the groups of the host.
    pub fn groups(&self) -> Tool {
        let columns = "vg_name,vg_size,vg_free,vg_extent_size,vg_tags,vg_lock_type";
        self.report("vgs", columns, &[])
    }

    /// Lists the volumes of a group.
    pub fn volumes(&self, group: &str) -> Tool {
        self.report("lvs", "lv_name,lv_size,lv_tags", &[group])
    }

    /// Makes a volume that is not active, that no start of the host activates, and that holds what was
    /// there before.
    pub fn create(&self, group: &str, volume: &str, size_bytes: u64, tags: &[&str]) -> Tool {
        let size = format!("{size_bytes}b");
        let mut words = vec!["--yes", "--wipesignatures", "n", "--zero", "n", "--activate", "n"];
        words.extend(["--setautoactivation", "n", "--size", &size, "--name", volume]);
        words.extend(tags.iter().flat_map(|tag| ["--addtag", tag]));
        words.push(group);
        self.tool("lvcreate", &words)
    }

    /// Makes a snapshot of a volume that is active: a volume that reads as that one does now, with so much
    /// room for what is written on that one from now on. LVM takes less where less is always enough. It is
    /// active whenever that one is, and so no start of the host activates it.
    pub fn snapshot(
        &self,
        group: &str,
        of: &str,
        volume: &str,
        size_bytes: u64,
        tags: &[&str],
    ) -> Tool {
        let (size, of) = (format!("{size_bytes}b"), path(group, of));
        let chunk = format!("{SNAPSHOT_CHUNK_BYTES}b");
        let mut words = vec!["--yes", "--snapshot", "--chunksize", &chunk, "--size", &size];
        words.extend(["--name", volume]);
        words.extend(tags.iter().flat_map(|tag| ["--addtag", tag]));
        words.push(&of);
        self.tool("lvcreate", &words)
    }

    /// Makes a volume larger; what is added holds what was there before.
    pub fn extend(&self, group: &str, volume: &str, size_bytes: u64) -> Tool {
        let (size, name) = (format!("{size_bytes}b"), path(group, volume));
        self.tool("lvextend", &["--size", &size, &name])
    }

    /// Gives a volume a tag.
    pub fn add_tag(&self, group: &str, volume: &str, tag: &str) -> Tool {
        self.tool("lvchange", &["--addtag", tag, &path(group, volume)])
    }

    /// Takes a tag from a volume.
    pub fn remove_tag(&self, group: &str, volume: &str, tag: &str) -> Tool {
        self.tool("lvchange", &["--deltag", tag, &path(group, volume)])
    }

    /// Gives a volume another name.
    pub fn rename(&self, group: &str, volume: &str, name: &str) -> Tool {
        self.tool("lvrename", &[group, volume, name])
    }

    /// Lets the host have a volume as a device: on its own account, or by the lock of those that share
    /// the group.
    pub fn activate(&self, group: &str, volume: &str, mode: Option<Mode>) -> Tool {
        let how = match mode {
            None => "y",
            Some(Mode::Exclusive) => "ey",
            Some(Mode::Shared) => "sy",
        };
        self.tool("lvchange", &["--activate", how, &path(group, volume)])
    }

    /// Takes the device of a volume from the host; not while something uses it.
    pub fn deactivate(&self, group: &str, volume: &str) -> Tool {
        self.tool("lvchange", &["--activate", "n", &path(group, volume)])
    }

    /// Makes the device of a volume what the volume is by now.
    pub fn refresh(&self, group: &str, volume: &str) -> Tool {
        self.tool("lvchange", &["--refresh", &path(group, volume)])
    }

    /// Removes a volume.
    pub fn remove(&self, group: &str, volume: &str) -> Tool {
        self.tool("lvremove", &["--yes", &path(group, volume)])
    }
}

fn path(group: &str, volume: &str) -> String {
    format!("{group}/{volume}")
}

/// Writes zeroes over a part of a device, by whatever way it has.
pub fn zero(device: &str, from_bytes: u64, to_bytes: u64) -> Tool {
    let (offset, length) = (from_bytes.to_string(), to_bytes.saturating_sub(from_bytes));
    let text = length.to_string();
    let words = ["--zeroout", "--offset", &offset, "--length", &text, device];
    Tool::new("blkdiscard", words).limit(super::qemu_img::copy_limit(length))
}

#[derive(Deserialize)]
struct Report {
    report: Vec<Part>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Part {
    vg: Vec<Group>,
    lv: Vec<Volume>,
}

fn parts(tool: &Tool, answer: &[u8]) -> Result<impl Iterator<Item = Part>, ToolFault> {
    let report: Report = serde_json::from_slice(answer).map_err(|error| tool.nonsense(error))?;
    Ok(report.report.into_iter())
}

/// Reads the answer about groups.
///
/// # Errors
/// What `lvm` wrote is something else.
pub fn read_groups(tool: &Tool, answer: &[u8]) -> Result<Vec<Group>, ToolFault> {
    Ok(parts(tool, answer)?.flat_map(|part| part.vg).collect())
}

/// Reads the answer about volumes.
///
/// # Errors
/// What `lvm` wrote is something else.
pub fn read_volumes(tool: &Tool, answer: &[u8]) -> Result<Vec<Volume>, ToolFault> {
    Ok(parts(tool, answer)?.flat_map(|part| part.lv).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_names_what_it_is_for() {
        let lvm = Lvm::default();
        let tools = [
            lvm.groups(),
            lvm.volumes("vg0"),
            lvm.create("vg0", "sk-1", 1 << 30, &["skyledger-disk=1", "skyledger-unfinished"]),
            lvm.activate("vg0", "sk-1", None),
            lvm.activate("vg0", "sk-1", Some(Mode::Exclusive)),
            lvm.activate("vg0", "sk-1", Some(Mode::Shared)),
            zero("/dev/vg0/sk-1", 0, 1 << 30),
            lvm.remove_tag("vg0", "sk-1", "skyledger-unfinished"),
            lvm.add_tag("vg0", "sk-1", "skyledger-zero-from=1073741824"),
            lvm.extend("vg0", "sk-1", 2 << 30),
            lvm.refresh("vg0", "sk-1"),
            zero("/dev/vg0/sk-1", 1 << 30, 2 << 30),
            lvm.snapshot("vg0", "sk-1", "sks-2", 1 << 30, &["skyledger-disk=1"]),
            lvm.rename("vg0", "sk-1.again", "sk-1"),
            lvm.deactivate("vg0", "sk-1"),
            lvm.remove("vg0", "sk-1"),
        ];
        let lines = tools.map(|tool| tool.line());
        assert_eq!(
            lines,
            [
                "lvm vgs --reportformat json --units b --nosuffix --options \
                 vg_name,vg_size,vg_free,vg_extent_size,vg_tags,vg_lock_type",
                "lvm lvs --reportformat json --units b --nosuffix --options lv_name,lv_size,lv_tags vg0",
                "lvm lvcreate --yes --wipesignatures n --zero n --activate n --setautoactivation n \
                 --size 1073741824b --name sk-1 --addtag skyledger-disk=1 --addtag \
                 skyledger-unfinished vg0",
                "lvm lvchange --activate y vg0/sk-1",
                "lvm lvchange --activate ey vg0/sk-1",
                "lvm lvchange --activate sy vg0/sk-1",
                "blkdiscard --zeroout --offset 0 --length 1073741824 /dev/vg0/sk-1",
                "lvm lvchange --deltag skyledger-unfinished vg0/sk-1",
                "lvm lvchange --addtag skyledger-zero-from=1073741824 vg0/sk-1",
                "lvm lvextend --size 2147483648b vg0/sk-1",
                "lvm lvchange --refresh vg0/sk-1",
                "blkdiscard --zeroout --offset 1073741824 --length 1073741824 /dev/vg0/sk-1",
                "lvm lvcreate --yes --snapshot --chunksize 65536b --size 1073741824b --name sks-2 \
                 --addtag skyledger-disk=1 vg0/sk-1",
                "lvm lvrename vg0 sk-1.again sk-1",
                "lvm lvchange --activate n vg0/sk-1",
                "lvm lvremove --yes vg0/sk-1",
            ]
        );
        let set = Lvm::with(Some("global { activation = 0 }".to_owned())).remove("vg0", "sk-1");
        let line = "lvm lvremove --config 'global { activation = 0 }' --yes vg0/sk-1";
        assert_eq!(set.line(), line);
    }

    #[test]
    fn an_answer_is_read() {
        let tool = Lvm::default().groups();
        let groups = br#"{"report": [{"vg": [
            {"vg_name":"vg0", "vg_size":"264241152", "vg_free":"4194304", "vg_extent_size":"4194304",
             "vg_tags":"fast,skyledger-storage=1", "vg_lock_type":""}]}], "log": []}"#;
        let group = read_groups(&tool, groups).unwrap().remove(0);
        let numbers = (group.size_bytes, group.free_bytes, group.extent_bytes);
        assert_eq!((group.name.as_str(), numbers), ("vg0", (264_241_152, 4_194_304, 4_194_304)));
        assert_eq!(group.tags, ["fast", "skyledger-storage=1"].map(str::to_owned).into());
        let volumes = br#"{"report": [{"lv": [{"lv_name":"a", "lv_size":"512", "lv_tags":""}]}]}"#;
        let volume = read_volumes(&tool, volumes).unwrap().remove(0);
        assert_eq!((volume.name.as_str(), volume.size_bytes, volume.tags.len()), ("a", 512, 0));
        assert!(read_volumes(&tool, br#"{"report": []}"#).unwrap().is_empty());
        let odd = br#"{"report": [{"lv": [{"lv_name":"a", "lv_size":"1.00g", "lv_tags":""}]}]}"#;
        let fault = read_volumes(&tool, odd).unwrap_err();
        assert!(fault.to_string().contains("1.00g"), "{fault}");
    }

    #[test]
    fn a_name_is_no_option() {
        for name in ["vg0", "vg-ssd_1.a+b"] {
            assert!(is_name(name), "{name}");
        }
        let long = "a".repeat(128);
        for name in ["", "-y", ".", "..", "a/b", "a b", "@tag", "ä", long.as_str()] {
            assert!(!is_name(name), "{name}");
        }
    }
}
