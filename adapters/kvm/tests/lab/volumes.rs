//! A volume group for a test alone, on a machine whose kernel may have no device-mapper: LVM keeps its
//! account of the volumes as everywhere, and their devices are loop devices on the parts of the group's
//! file that LVM says are theirs. A snapshot, which only device-mapper can make, is a copy.

use std::{
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use adapters_kvm::{
    storage::{
        StorageFault,
        lvm::Lvm,
        volume_group::{Activation, VolumeGroups},
    },
    tool::Tool,
};
use async_trait::async_trait;
use domain::compute::storage::{StorageId, lease::Mode};
use serde_json::Value;
use tempfile::TempDir;

/// The storage that the group is.
pub(crate) const STORAGE: &str = "01990000-0000-7000-8000-0000000000bb";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A group, which goes with it.
pub(crate) struct Volumes {
    _folder: TempDir,
    loops: Arc<Loops>,
}

struct Loops {
    group: String,
    file: PathBuf,
    device: String,
    devices: PathBuf,
    config: String,
}

async fn output(program: &str, words: &[&str]) -> Result<String, StorageFault> {
    Ok(Tool::new(program, words.iter().copied()).text().await?.trim().to_owned())
}

impl Volumes {
    /// A group of this size, or none where this machine cannot have one, which is said.
    pub(crate) async fn of_tests(size_bytes: u64) -> Option<Self> {
        match Self::new(size_bytes).await {
            Ok(volumes) => Some(volumes),
            Err(why) => {
                // Past what catches the output of tests that pass.
                let said = writeln!(std::io::stderr(), "LEFT OUT, no volume group here: {why}");
                said.unwrap();
                None
            }
        }
    }

    async fn new(size_bytes: u64) -> Result<Self, StorageFault> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("disk");
        std::fs::File::create(&file).unwrap().set_len(size_bytes).unwrap();
        let device = output("losetup", &["--find", "--show", file.to_str().unwrap()]).await?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let group = format!("skyledger-{}-{number}", std::process::id());
        let devices = folder.path().join("devices");
        std::fs::create_dir_all(devices.join(&group)).unwrap();
        // Nothing of the machine's own groups is looked at.
        let config = format!(
            "global {{ activation = 0 }} \
             devices {{ use_devicesfile = 0 obtain_device_list_from_udev = 0 \
                        global_filter = [ \"a|^{device}$|\", \"r|.*|\" ] }} \
             backup {{ backup = 0 archive = 0 }}"
        );
        let loops = Arc::new(Loops { group, file, device, devices, config });
        let volumes = Self { _folder: folder, loops };
        let tag = format!("skyledger-storage={STORAGE}");
        // In one piece each, for a loop device has one part of a file.
        let loops = &volumes.loops;
        let words = ["--alloc", "contiguous", "--addtag", &tag, &loops.group, &loops.device];
        volumes.lvm("vgcreate", &words).await?;
        Ok(volumes)
    }

    pub(crate) fn storage() -> StorageId {
        STORAGE.parse().unwrap()
    }

    pub(crate) fn name(&self) -> &str {
        &self.loops.group
    }

    /// The file that the group is on.
    pub(crate) fn file(&self) -> &Path {
        &self.loops.file
    }

    /// As a host is told of it.
    pub(crate) fn groups(&self) -> VolumeGroups {
        let lvm = Lvm::with(Some(self.loops.config.clone()));
        let groups = VolumeGroups::new(vec![self.loops.group.clone()]).unwrap();
        groups.by(lvm, self.loops.devices.clone(), Arc::clone(&self.loops) as Arc<dyn Activation>)
    }

    /// Runs a command of LVM.
    pub(crate) async fn lvm(&self, command: &str, words: &[&str]) -> Result<String, StorageFault> {
        self.loops.lvm(command, words).await
    }

    /// The volumes that there are, by name.
    pub(crate) async fn names(&self) -> Vec<String> {
        let listed =
            self.lvm("lvs", &["--noheadings", "-o", "lv_name", self.name()]).await.unwrap();
        let mut names: Vec<_> = listed.split_whitespace().map(str::to_owned).collect();
        names.sort();
        names
    }

    /// Where the device of a volume is, while it has one.
    pub(crate) fn device(&self, volume: &str) -> PathBuf {
        self.loops.link(volume)
    }

    /// No volume has a device any more, as after a start of the machine.
    pub(crate) async fn deactivate_all(&self) {
        for name in self.names().await {
            self.loops.deactivate(self.name(), &name).await.unwrap();
        }
    }
}

impl Drop for Volumes {
    fn drop(&mut self) {
        // Whatever was made on it, of a test that failed as well.
        let clear = format!(
            "for device in $(losetup --associated {} --noheadings --output NAME); do \
                 losetup --detach $device; \
             done",
            self.loops.file.display()
        );
        let _ = std::process::Command::new("timeout").args(["60", "sh", "-c", &clear]).status();
    }
}

impl Loops {
    async fn lvm(&self, command: &str, words: &[&str]) -> Result<String, StorageFault> {
        output("lvm", &[&[command, "--config", &self.config], words].concat()).await
    }

    /// The snapshots of a disk, which are active with it.
    async fn snapshots(&self, volume: &str) -> Result<Vec<String>, StorageFault> {
        let Some(disk) = volume.strip_prefix("sk-") else { return Ok(Vec::new()) };
        let tagged = format!("lv_tags={{skyledger-disk={disk}}} && lv_name=~^sks-");
        let words = ["--noheadings", "-o", "lv_name", "--select", &tagged, &self.group];
        let listed = self.lvm("lvs", &words).await?;
        Ok(listed.split_whitespace().map(str::to_owned).collect())
    }

    /// A volume has a device, as large as this one is.
    async fn attach(&self, volume: &str, sized: &str) -> Result<(), StorageFault> {
        let link = self.link(volume);
        if link.exists() {
            return Ok(());
        }
        let (offset, size) = (self.part(volume).await?.0, self.part(sized).await?.1);
        let (offset, size) = (offset.to_string(), size.to_string());
        let file = self.file.to_str().unwrap();
        let words = ["--find", "--show", "--offset", &offset, "--sizelimit", &size, file];
        let device = output("losetup", &words).await?;
        std::os::unix::fs::symlink(device, link).unwrap();
        Ok(())
    }

    async fn detach(&self, volume: &str) -> Result<(), StorageFault> {
        let link = self.link(volume);
        if let Ok(device) = std::fs::read_link(&link) {
            // First: what is cut off here is a device that nobody knows, and that goes with the group.
            std::fs::remove_file(link).unwrap();
            output("losetup", &["--detach", device.to_str().unwrap()]).await?;
        }
        Ok(())
    }

    fn link(&self, volume: &str) -> PathBuf {
        self.devices.join(&self.group).join(volume)
    }

    /// Where in the file a volume is, and how large it is, in bytes.
    async fn part(&self, volume: &str) -> Result<(u64, u64), StorageFault> {
        let how = ["--reportformat", "json", "--units", "b", "--nosuffix", "-o"];
        let name = format!("{}/{volume}", self.group);
        let lvs = self.lvm("lvs", &[&how[..], &["lv_size,seg_pe_ranges", &name]].concat()).await?;
        let pvs = self.lvm("pvs", &[&how[..], &["pe_start,vg_extent_size"]].concat()).await?;
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap()["report"][0].clone();
        let (volume, disk) = (read(&lvs)["lv"][0].clone(), read(&pvs)["pv"][0].clone());
        let number = |value: &Value| value.as_str().unwrap().parse::<u64>().unwrap();
        let ranges = volume["seg_pe_ranges"].as_str().unwrap();
        let first = ranges.rsplit(':').next().unwrap().split('-').next().unwrap();
        let from = first.parse::<u64>().unwrap() * number(&disk["vg_extent_size"]);
        Ok((number(&disk["pe_start"]) + from, number(&volume["lv_size"])))
    }
}

#[async_trait]
impl Activation for Loops {
    async fn activate(
        &self,
        group: &str,
        volume: &str,
        _: Option<Mode>,
    ) -> Result<(), StorageFault> {
        assert_eq!(group, self.group);
        self.attach(volume, volume).await?;
        for snapshot in self.snapshots(volume).await? {
            self.attach(&snapshot, volume).await?;
        }
        Ok(())
    }

    async fn deactivate(&self, _: &str, volume: &str) -> Result<(), StorageFault> {
        for snapshot in self.snapshots(volume).await? {
            self.detach(&snapshot).await?;
        }
        self.detach(volume).await
    }

    async fn snapshot(
        &self,
        _: &str,
        of: &str,
        volume: &str,
        size_bytes: u64,
        tags: &[&str],
    ) -> Result<(), StorageFault> {
        assert!(self.link(of).exists(), "LVM makes none of a volume that is not active");
        let size = format!("{size_bytes}b");
        let mut words = vec!["-y", "-an", "-Zn", "-Wn", "-L", &size, "-n", volume];
        words.extend(tags.iter().flat_map(|tag| ["--addtag", tag]));
        words.push(&self.group);
        self.lvm("lvcreate", &words).await?;
        self.attach(volume, of).await?;
        let bytes = std::fs::read(self.link(of)).unwrap();
        let copy = std::fs::File::options().write(true).open(self.link(volume)).unwrap();
        copy.write_all_at(&bytes, 0).unwrap();
        copy.sync_all().unwrap();
        Ok(())
    }

    async fn remove_snapshot(&self, _: &str, volume: &str) -> Result<(), StorageFault> {
        self.detach(volume).await?;
        let name = format!("{}/{volume}", self.group);
        self.lvm("lvremove", &["-y", &name]).await.map(drop)
    }

    async fn refresh(&self, _: &str, volume: &str) -> Result<(), StorageFault> {
        let (_, size) = self.part(volume).await?;
        let device = std::fs::read_link(self.link(volume)).unwrap();
        // LOOP_GET_STATUS64, LOOP_SET_STATUS64: losetup does not change a limit that is set.
        let change = "import fcntl, struct, sys\n\
             with open(sys.argv[1]) as device:\n\
             \tstatus = bytearray(232)\n\
             \tfcntl.ioctl(device, 0x4C05, status)\n\
             \tstruct.pack_into('<Q', status, 32, int(sys.argv[2]))\n\
             \tfcntl.ioctl(device, 0x4C04, status)\n";
        let words = ["-c", change, device.to_str().unwrap(), &size.to_string()];
        output("python3", &words).await.map(drop)
    }
}
