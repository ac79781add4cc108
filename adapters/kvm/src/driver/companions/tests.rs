//! On a kernel that is a folder.

use std::sync::Arc;

use serde_json::json;

use super::{
    super::{KvmHost, Options},
    *,
};

#[path = "../../../tests/lab/kernel.rs"]
mod kernel;

use kernel::{Folder, Part};

const GPU: &str = "0000:41:00.0";
const SOUND: &str = "0000:41:00.1";
const PORTS: &str = "0000:41:00.2";
/// A card with its sound and its ports behind a bridge, and a card of another group.
const PARTS: [Part<'static>; 5] = [
    ("0000:40:01.0", "0x060400", 7, "pcieport"),
    (GPU, "0x030000", 7, "nouveau"),
    (SOUND, "0x040300", 7, "snd_hda_intel"),
    (PORTS, "0x0c0330", 7, "xhci_hcd"),
    ("0000:42:00.0", "0x020000", 8, "igb"),
];
const SERVER: Uuid = Uuid::from_u128(1);

async fn host(root: &Path, kernel: &Arc<Folder>) -> KvmHost {
    let files = Arc::clone(kernel) as Arc<dyn Kernel>;
    let options = Options { kernel: root.to_owned(), files, ..Options::new(root.join("agent")) };
    KvmHost::open(options).await.unwrap()
}

fn holding(devices: &[&str], with: &[&str]) -> Holding {
    serde_json::from_value(json!({
        "server": SERVER, "vcpus": 1, "memory_mib": 64, "devices": devices, "devices_with": with,
    }))
    .unwrap()
}

async fn take(host: &KvmHost, holding: &Holding) -> Result<(), DriverFault> {
    let inner = &host.inner;
    let found = inner.look().await.unwrap();
    inner.take_companions(SERVER, holding, &found).await
}

fn drivers(kernel: &Folder) -> Vec<Option<String>> {
    PARTS.iter().map(|part| kernel.driver(part.0)).collect()
}

fn some(drivers: [&str; 5]) -> Vec<Option<String>> {
    drivers.map(|driver| Some(driver.to_owned())).to_vec()
}

fn theirs() -> Vec<Option<String>> {
    some(PARTS.map(|part| part.3))
}

/// What is expected while a server has the card: libvirt takes the card itself, and the bridge keeps its driver.
fn taken() -> Vec<Option<String>> {
    some(["pcieport", "nouveau", DRIVER, DRIVER, "igb"])
}

#[tokio::test]
async fn the_rest_of_a_group_is_taken_and_goes_back() {
    let folder = tempfile::tempdir().unwrap();
    let kernel = Folder::new(folder.path(), &PARTS);
    let host = host(folder.path(), &kernel).await;
    let held = holding(&[GPU], &[SOUND, PORTS]);
    take(&host, &held).await.unwrap();
    assert_eq!(drivers(&kernel), taken());
    let at = |address: &str| format!("sys/bus/pci/devices/{address}");
    let of = |address: &str| {
        [
            format!("{}/driver_override vfio-pci", at(address)),
            format!("{}/driver/unbind {address}", at(address)),
            format!("sys/bus/pci/drivers_probe {address}"),
        ]
    };
    assert_eq!(kernel.told(), [of(SOUND), of(PORTS)].concat());
    // Again, as after a report that was lost: there is nothing to do.
    take(&host, &held).await.unwrap();
    assert_eq!(kernel.told(), Vec::<String>::new());

    host.inner.release_devices(SERVER, &BTreeSet::new()).await.unwrap();
    assert_eq!(drivers(&kernel), theirs());
    let [of_first, ..] = [SOUND, PORTS].map(|address| format!("{}/driver_override", at(address)));
    assert_eq!(kernel.told().first(), Some(&of_first));
    let record = host.inner.records.read(SERVER).await.unwrap().unwrap();
    assert_eq!(record.taken, BTreeMap::new());
    host.inner.release_devices(SERVER, &BTreeSet::new()).await.unwrap();
    assert_eq!(kernel.told(), Vec::<String>::new());
}

#[tokio::test]
async fn cut_off_anywhere_it_is_taken_by_who_comes_next_or_goes_back() {
    let held = holding(&[GPU], &[SOUND, PORTS]);
    let mut cuts = 0;
    for at in 0..6 {
        for (is_done, goes_on) in [(false, false), (false, true), (true, false), (true, true)] {
            let folder = tempfile::tempdir().unwrap();
            let kernel = Folder::new(folder.path(), &PARTS);
            kernel.say_no(at, is_done);
            let died = take(&host(folder.path(), &kernel).await, &held).await;
            assert!(matches!(died, Err(DriverFault::Transient(_))), "{died:?}");
            assert!(kernel.said_no());
            cuts += 1;
            // Another agent: the server is started, or is not any more.
            let host = host(folder.path(), &kernel).await;
            if goes_on {
                take(&host, &held).await.unwrap();
                assert_eq!(drivers(&kernel), taken(), "{at} {is_done}");
            }
            // And is cut off where it gives back, too.
            kernel.say_no(at, is_done);
            let died = host.inner.give_back_companions(SERVER).await;
            cuts += usize::from(died.is_err());
            assert_eq!(died.is_err(), kernel.said_no());
            assert!(!goes_on || died.is_err(), "{at} {is_done}");
            host.inner.give_back_companions(SERVER).await.unwrap();
            assert_eq!(drivers(&kernel), theirs(), "{at} {is_done} {goes_on}");
        }
    }
    assert!(cuts >= 36, "{cuts}");
}

#[tokio::test]
async fn nothing_is_taken_where_something_cannot_be() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let kernel = Folder::new(root, &PARTS);
    let host = host(root, &kernel).await;
    let refused = async |holding: &Holding| {
        let said = take(&host, holding).await;
        let Err(DriverFault::Rejected(why)) = said else { panic!("{said:?}") };
        assert_eq!((drivers(&kernel), kernel.told()), (theirs(), Vec::new()));
        why
    };
    // It came after the server was placed.
    let why = refused(&holding(&[GPU], &[SOUND])).await;
    assert!(why.contains(PORTS) && why.contains("xhci_hcd"), "{why}");
    // The host has come to use it: a disk behind its ports is mounted.
    let disk = root.join(format!("sys/devices/{PORTS}/usb1/block/sda"));
    std::fs::create_dir_all(&disk).unwrap();
    std::fs::write(disk.join("dev"), "8:0\n").unwrap();
    let link = root.join("sys/class/block/sda");
    std::fs::create_dir_all(link.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(&disk, link).unwrap();
    let mounted = root.join("proc/self/mountinfo");
    std::fs::create_dir_all(mounted.parent().unwrap()).unwrap();
    std::fs::write(&mounted, "1 1 8:0 / /mnt rw - ext4 /dev/sda rw\n").unwrap();
    let why = refused(&holding(&[GPU], &[SOUND, PORTS])).await;
    assert!(why.contains(PORTS) && why.contains("used by the host"), "{why}");
    // Not even what was asked for is taken from it then.
    let why = refused(&holding(&[PORTS], &[GPU, SOUND])).await;
    assert!(why.contains(PORTS) && why.contains("used by the host"), "{why}");
    assert_eq!(host.inner.records.all().await.unwrap(), BTreeMap::new());
}

#[tokio::test]
async fn what_an_operator_bound_stays_bound_and_what_is_no_more_of_it_goes_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut parts = PARTS;
    parts[3].3 = DRIVER;
    let kernel = Folder::new(folder.path(), &parts);
    let host = host(folder.path(), &kernel).await;
    take(&host, &holding(&[GPU], &[SOUND, PORTS])).await.unwrap();
    let record = host.inner.records.read(SERVER).await.unwrap().unwrap();
    assert_eq!(record.taken, [(SOUND.to_owned(), "snd_hda_intel".to_owned())].into());
    // The server has something else by now.
    take(&host, &holding(&["0000:42:00.0"], &[])).await.unwrap();
    assert_eq!(drivers(&kernel), some(["pcieport", "nouveau", "snd_hda_intel", DRIVER, "igb"]));
    host.inner.give_back_companions(SERVER).await.unwrap();
    assert_eq!(kernel.driver(PORTS).as_deref(), Some(DRIVER));
}
