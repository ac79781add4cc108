//! Mediated devices on a kernel that is a folder, and does at its files what a driver does.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use super::{
    super::{KvmHost, Options, companions::Kernel},
    *,
};

const ID: &str = "mdev:mtty/mtty-1/0";
const SERVER: Uuid = Uuid::from_u128(1);

/// A driver whose devices are all of one kind. It says no once, before or after it did what was asked.
struct Driver {
    root: PathBuf,
    no: Mutex<Option<bool>>,
}

impl Driver {
    fn new(root: &Path) -> Arc<Self> {
        let card = root.join("sys/devices/mtty");
        let kind = card.join("mdev_supported_types/mtty-1");
        fs::create_dir_all(&kind).unwrap();
        fs::write(kind.join("available_instances"), "2\n").unwrap();
        for folder in ["sys/class/mdev_bus", "sys/bus/mdev/devices"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        symlink(card, root.join("sys/class/mdev_bus/mtty")).unwrap();
        Arc::new(Self { root: root.to_owned(), no: Mutex::default() })
    }

    fn say_no(&self, is_done: bool) {
        *self.no.lock().unwrap() = Some(is_done);
    }

    fn devices(&self) -> Vec<String> {
        let all = fs::read_dir(self.root.join("sys/bus/mdev/devices")).unwrap();
        all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    async fn host(self: &Arc<Self>) -> KvmHost {
        let files = Arc::clone(self) as Arc<dyn Kernel>;
        let folder = self.root.join("agent");
        let options = Options { kernel: self.root.clone(), files, ..Options::new(folder) };
        KvmHost::open(options).await.unwrap()
    }
}

impl Kernel for Driver {
    fn tell(&self, file: &Path, text: &str) -> io::Result<()> {
        let no = self.no.lock().unwrap().take();
        let busy = || Err(io::Error::from(io::ErrorKind::ResourceBusy));
        if no == Some(false) {
            return busy();
        }
        let (link, device) =
            (self.root.join("sys/bus/mdev/devices"), self.root.join("sys/devices/mtty"));
        let folder = file.parent().unwrap();
        match file.file_name().unwrap().to_str().unwrap() {
            "create" => {
                let made = device.join(text);
                // As the kernel does with a UUID that is there.
                fs::create_dir(&made)?;
                symlink(folder.canonicalize()?, made.join("mdev_type"))?;
                symlink(made, link.join(text))?;
            }
            "remove" => {
                let uuid = folder.file_name().unwrap();
                fs::remove_file(link.join(uuid))?;
                fs::remove_dir_all(device.join(uuid))?;
            }
            other => panic!("{other}"),
        }
        if no.is_some() { busy() } else { Ok(()) }
    }
}

async fn make(host: &KvmHost) -> Result<(), DriverFault> {
    let (inner, slot) = (&host.inner, Slot::read(ID).unwrap());
    inner.make(SERVER, ID, &slot, &inner.look().await?).await
}

#[tokio::test]
async fn cut_off_anywhere_a_mediated_device_is_made_once_and_goes() {
    for is_done in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let driver = Driver::new(folder.path());
        let uuid = mediated::uuid(SERVER, ID).to_string();
        {
            let host = driver.host().await;
            // What is written down before anything is made.
            let mut record = super::super::records::Record::default();
            record.devices.insert(ID.to_owned());
            host.inner.records.write(SERVER, &record).await.unwrap();
            driver.say_no(is_done);
            let said = make(&host).await;
            let Err(DriverFault::Rejected(why)) = said else { panic!("{said:?}") };
            assert!(
                why.contains("cannot write") && why.contains("no instance may be left"),
                "{why}"
            );
            assert_eq!(driver.devices().len(), usize::from(is_done));
        }
        // Another agent goes on, and again, as after a report that was lost.
        let host = driver.host().await;
        for _ in 0..2 {
            make(&host).await.unwrap();
            assert_eq!(driver.devices(), [uuid.as_str()], "{is_done}");
        }
        // It is cut off where it is taken back, too.
        driver.say_no(is_done);
        let none = BTreeSet::new();
        let said = host.inner.release_devices(SERVER, &none).await;
        assert!(matches!(said, Err(DriverFault::Rejected(_))), "{said:?}");
        assert_eq!(host.inner.made_devices().await.unwrap(), [(uuid, ID.to_owned())].into());
        drop(host);
        let host = driver.host().await;
        for _ in 0..2 {
            host.inner.release_devices(SERVER, &none).await.unwrap();
            assert_eq!(driver.devices(), Vec::<String>::new(), "{is_done}");
        }
        assert_eq!(host.inner.made_devices().await.unwrap(), BTreeMap::new());
    }
}
