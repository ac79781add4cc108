//! A kernel that is a folder: devices of IOMMU groups that are taken from drivers and given to others by its files,
//! as those of `/sys/bus/pci`. It can be made to say no at one of them, before or after it did what was asked.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::Kernel;

/// One, with what was written to it.
pub(crate) struct Folder {
    root: PathBuf,
    /// The drivers that devices have by themselves.
    drivers: Mutex<BTreeMap<String, String>>,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    lines: Vec<String>,
    /// At which line it says no, and whether it has done it by then.
    no: Option<(usize, bool)>,
}

/// A device: its address, class and group, and the driver that it has by itself.
pub(crate) type Part<'a> = (&'a str, &'a str, u32, &'a str);

impl Folder {
    pub(crate) fn new(root: &Path, parts: &[Part<'_>]) -> Arc<Self> {
        let own = Self { root: root.to_owned(), drivers: Mutex::default(), told: Mutex::default() };
        fs::create_dir_all(root.join("sys/bus/pci/drivers/vfio-pci")).unwrap();
        for part in parts {
            own.add(*part);
        }
        Arc::new(own)
    }

    fn device(&self, address: &str) -> PathBuf {
        self.root.join("sys/bus/pci/devices").join(address)
    }

    /// It is plugged in.
    pub(crate) fn add(&self, (address, class, group, driver): Part<'_>) {
        let at = self.device(address);
        fs::create_dir_all(&at).unwrap();
        for (name, text) in [("class", class), ("vendor", "0x10de"), ("device", "0x1eb8")] {
            fs::write(at.join(name), text).unwrap();
        }
        let group = self.root.join(format!("sys/kernel/iommu_groups/{group}"));
        fs::create_dir_all(&group).unwrap();
        symlink(group, at.join("iommu_group")).unwrap();
        fs::write(at.join("driver_override"), "(null)\n").unwrap();
        if !driver.is_empty() {
            let mut drivers = self.drivers.lock().unwrap_or_else(PoisonError::into_inner);
            drivers.insert(address.to_owned(), driver.to_owned());
            drop(drivers);
            self.bind(address);
        }
    }

    /// What has a device.
    pub(crate) fn driver(&self, address: &str) -> Option<String> {
        let link = fs::read_link(self.device(address).join("driver")).ok()?;
        Some(link.file_name()?.to_string_lossy().into_owned())
    }

    fn bind(&self, address: &str) {
        let of = fs::read_to_string(self.device(address).join("driver_override")).unwrap();
        let own = self.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        let driver = match of.trim() {
            "(null)" => own.get(address).cloned(),
            driver => Some(driver.to_owned()),
        };
        if let Some(driver) = driver.filter(|_| self.driver(address).is_none()) {
            let driver = self.root.join("sys/bus/pci/drivers").join(driver);
            fs::create_dir_all(&driver).unwrap();
            symlink(driver, self.device(address).join("driver")).unwrap();
        }
    }

    /// What was written since this was asked last.
    pub(crate) fn told(&self) -> Vec<String> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut told.lines)
    }

    /// Has it say no at what is written as this one from now on, before or after doing it.
    pub(crate) fn say_no(&self, at: usize, is_done: bool) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        *told = Told { lines: Vec::new(), no: Some((at, is_done)) };
    }

    /// Whether it has.
    pub(crate) fn said_no(&self) -> bool {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.no.is_none()
    }
}

impl Kernel for Folder {
    fn tell(&self, file: &Path, text: &str) -> io::Result<()> {
        let file = file.strip_prefix(&self.root).unwrap().to_owned();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let no = told.no.filter(|(at, _)| *at == told.lines.len());
        told.lines.push(format!("{} {}", file.display(), text.trim()).trim().to_owned());
        if no.is_some() {
            told.no = None;
        }
        drop(told);
        let busy = || Err(io::Error::from(io::ErrorKind::ResourceBusy));
        if no.is_some_and(|(_, is_done)| !is_done) {
            return busy();
        }
        match file.file_name().and_then(|name| name.to_str()) {
            Some("driver_override") => {
                let said = if text.trim().is_empty() { "(null)" } else { text };
                fs::write(self.root.join(&file), format!("{said}\n"))?;
            }
            Some("unbind") => fs::remove_file(self.device(text).join("driver"))?,
            Some("drivers_probe") => self.bind(text),
            _ => panic!("{}", file.display()),
        }
        if no.is_some() { busy() } else { Ok(()) }
    }
}
