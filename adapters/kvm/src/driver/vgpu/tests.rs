//! vGPUs on a host whose kernel is a folder.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::symlink,
    path::Path,
    sync::{Arc, Mutex},
};

use super::{
    super::{KvmHost, Options, companions::Kernel},
    *,
};

const CARD: &str = "0000:41:00.0";
const TYPES: &str = "ID    : vGPU Name\n1155  : NVIDIA L40S-12Q\n1156  : NVIDIA L40S-24Q\n";

fn functions() -> [String; 3] {
    [4, 5, 6].map(|number| format!("0000:41:00.{number}"))
}

/// A card with three functions, none of which is anything.
fn kernel(root: &Path) {
    let device = |address: &str, files: &[(&str, &str)]| {
        let folder = root.join("sys/bus/pci/devices").join(address);
        let common = [("class", "0x030200"), ("vendor", "0x10de"), ("device", "0x26b9")];
        for (name, text) in common.iter().chain(files) {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    };
    let card = device(CARD, &[("sriov_totalvfs", "3\n"), ("sriov_numvfs", "3\n")]);
    for (number, address) in functions().iter().enumerate() {
        let files = [("nvidia/creatable_vgpu_types", TYPES), ("nvidia/current_vgpu_type", "0\n")];
        let function = device(address, &files);
        symlink(&card, function.join("physfn")).unwrap();
        symlink(&function, card.join(format!("virtfn{number}"))).unwrap();
        let group = root.join(format!("sys/kernel/iommu_groups/{}", 60 + number));
        fs::create_dir_all(&group).unwrap();
        symlink(group, function.join("iommu_group")).unwrap();
    }
}

async fn host(root: &Path) -> KvmHost {
    let options = Options { kernel: root.to_owned(), ..Options::new(root.join("agent")) };
    KvmHost::open(options).await.unwrap()
}

fn holding(server: Uuid, devices: &[String]) -> Holding {
    let holding = serde_json::json!({
        "server": server, "vcpus": 1, "memory_mib": 64, "devices": devices,
    });
    serde_json::from_value(holding).unwrap()
}

fn slot(of_type: u32, number: u32) -> String {
    Slot { card: CARD.to_owned(), of_type, number }.id()
}

fn current(root: &Path) -> [String; 3] {
    functions()
        .map(|function| fs::read_to_string(root.join(vgpu::current_file(&function))).unwrap())
}

async fn make(inner: &Inner, server: Uuid) {
    inner.make_vgpus(&inner.records.read(server).await.unwrap().unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_vgpu_is_one_function_from_its_choice_until_its_server_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    kernel(root);
    let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let [first, second, third] = functions();
    {
        let host = host(root).await;
        let inner = &host.inner;
        let seats = inner.seat_vgpus(one, &holding(one, &[slot(1155, 0)])).await.unwrap();
        assert_eq!(seats, [(slot(1155, 0), first.clone())].into());
        // Chosen is not made, and nobody else gets it.
        assert_eq!(current(root), ["0\n", "0\n", "0\n"]);
        let two = [slot(1155, 1), slot(1155, 2)];
        let seats = inner.seat_vgpus(other, &holding(other, &two)).await.unwrap();
        assert_eq!(seats.into_values().collect::<Vec<_>>(), [second.clone(), third.clone()]);
        make(inner, other).await;
        assert_eq!(current(root), ["0\n", "1155", "1155"]);
    }
    // The agent died before the first was made: who comes after it goes on with the same.
    let host = host(root).await;
    let inner = &host.inner;
    let seats = inner.seat_vgpus(one, &holding(one, &[slot(1155, 0)])).await.unwrap();
    assert_eq!(seats[&slot(1155, 0)], first);
    make(inner, one).await;
    let record = inner.records.read(one).await.unwrap().unwrap();
    let seen = SeenVgpu { address: first.clone(), vgpu_type: 1155 };
    assert_eq!(inner.seen_vgpus(&record).unwrap(), [(slot(1155, 0), seen)].into());
    // A third server is refused in words, and nothing is written down of it.
    let third_server = Uuid::from_u128(3);
    let full = inner.seat_vgpus(third_server, &holding(third_server, &[slot(1155, 3)])).await;
    let Err(DriverFault::Rejected(why)) = full else { panic!("{full:?}") };
    assert!(why.contains("no virtual function of 0000:41:00.0"), "{why}");
    assert_eq!(inner.records.read(third_server).await.unwrap(), None);

    // One of two is taken from it while it is stopped, and then both are gone with it.
    inner.release_devices(other, &[slot(1155, 1)].into()).await.unwrap();
    assert_eq!(current(root), ["1155", "1155", "0"]);
    inner.release_devices(other, &BTreeSet::new()).await.unwrap();
    assert_eq!(current(root), ["1155", "0", "0"]);
    assert_eq!(inner.seated_vgpus().await.unwrap(), [(slot(1155, 0), first)].into());
    let seats = inner.seat_vgpus(third_server, &holding(third_server, &[slot(1156, 0)])).await;
    assert_eq!(seats.unwrap(), [(slot(1156, 0), second)].into());
}

#[tokio::test]
async fn after_a_restart_of_the_host_it_is_made_again_and_what_is_somebody_else_s_is_let_alone() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    kernel(root);
    let host = host(root).await;
    let inner = &host.inner;
    let server = Uuid::from_u128(1);
    let held = holding(server, &[slot(1155, 0)]);
    let [first, second, _] = functions();
    inner.seat_vgpus(server, &held).await.unwrap();
    make(inner, server).await;
    let set = |function: &str, text: &str| {
        fs::write(root.join(vgpu::current_file(function)), text).unwrap();
    };
    // It is nothing after a restart, and is made the same again.
    set(&first, "0\n");
    assert_eq!(inner.seat_vgpus(server, &held).await.unwrap()[&slot(1155, 0)], first);
    make(inner, server).await;
    assert_eq!(current(root)[0], "1155");
    // Somebody made it another type meanwhile: the server gets another function.
    set(&first, "1156\n");
    assert_eq!(inner.seat_vgpus(server, &held).await.unwrap()[&slot(1155, 0)], second);
    make(inner, server).await;
    // And the other way round when it is given back.
    set(&second, "1156\n");
    inner.release_devices(server, &BTreeSet::new()).await.unwrap();
    assert_eq!(current(root), ["1156\n", "1156\n", "0\n"]);
    assert_eq!(inner.seated_vgpus().await.unwrap(), BTreeMap::new());
}

#[tokio::test]
async fn a_type_that_is_not_taken_is_a_fault_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    kernel(root);
    let host = host(root).await;
    let inner = &host.inner;
    let server = Uuid::from_u128(1);
    inner.seat_vgpus(server, &holding(server, &[slot(1155, 0)])).await.unwrap();
    // What can be read and not written to.
    let file = root.join(vgpu::current_file(&functions()[0]));
    fs::remove_file(&file).unwrap();
    symlink("/proc/sys/kernel/ngroups_max", &file).unwrap();
    let record = inner.records.read(server).await.unwrap().unwrap();
    let fault = inner.make_vgpus(&record).await.unwrap_err().to_string();
    assert!(fault.contains("cannot write") && fault.contains("in use"), "{fault}");
}

#[tokio::test]
async fn two_servers_at_once_get_two_functions() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    kernel(root);
    let host = host(root).await;
    let servers = [1, 2, 3].map(Uuid::from_u128);
    let seat = |at: usize| {
        let (inner, server) = (&host.inner, servers[at]);
        async move {
            let held = holding(server, &[slot(1155, at as u32)]);
            inner.seat_vgpus(server, &held).await.unwrap().into_values().next().unwrap()
        }
    };
    let (a, b, c) = tokio::join!(seat(0), seat(1), seat(2));
    assert_eq!(BTreeSet::from([a, b, c]), BTreeSet::from(functions()));
}

#[tokio::test]
async fn what_was_seen_of_a_card_is_known_after_its_memory_is_given_out() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    kernel(root);
    let host = host(root).await;
    let all = host.inner.cards().await.unwrap();
    assert_eq!(all[CARD].types.keys().copied().collect::<Vec<_>>(), [1155, 1156]);
    for function in functions() {
        let file = root.join(format!("sys/bus/pci/devices/{function}/nvidia/creatable_vgpu_types"));
        fs::write(file, "").unwrap();
    }
    assert_eq!(host.inner.cards().await.unwrap(), all);
    // A file that does not read is made anew.
    fs::write(root.join("agent/cards.json"), "{").unwrap();
    assert_eq!(host.inner.cards().await.unwrap()[CARD].types, BTreeMap::new());
}

/// One that says no once, before or after it did what was asked.
#[derive(Default)]
struct SaysNo(Mutex<Option<bool>>);

impl SaysNo {
    fn say_no(&self, is_done: bool) {
        *self.0.lock().unwrap() = Some(is_done);
    }

    async fn host(self: &Arc<Self>, root: &Path) -> KvmHost {
        let files = Arc::clone(self) as Arc<dyn Kernel>;
        let options =
            Options { kernel: root.to_owned(), files, ..Options::new(root.join("agent")) };
        KvmHost::open(options).await.unwrap()
    }
}

impl Kernel for SaysNo {
    fn tell(&self, file: &Path, text: &str) -> io::Result<()> {
        let no = self.0.lock().unwrap().take();
        if no != Some(false) {
            fs::write(file, text)?;
        }
        if no.is_some() { Err(io::ErrorKind::ResourceBusy.into()) } else { Ok(()) }
    }
}

#[tokio::test]
async fn cut_off_anywhere_a_vgpu_is_made_of_the_same_function_and_given_back() {
    for is_done in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        kernel(root);
        let (server, says) = (Uuid::from_u128(1), Arc::new(SaysNo::default()));
        let held = holding(server, &[slot(1155, 0)]);
        let first = functions()[0].clone();
        let rejected = |said: Result<(), DriverFault>| {
            let Err(DriverFault::Rejected(why)) = said else { panic!("{said:?}") };
            assert!(why.contains("cannot write"), "{why}");
        };
        {
            let host = says.host(root).await;
            host.inner.seat_vgpus(server, &held).await.unwrap();
            says.say_no(is_done);
            let record = host.inner.records.read(server).await.unwrap().unwrap();
            rejected(host.inner.make_vgpus(&record).await);
            assert_eq!(current(root)[0], if is_done { "1155" } else { "0\n" });
        }
        // Another agent goes on with the same.
        let host = says.host(root).await;
        assert_eq!(host.inner.seat_vgpus(server, &held).await.unwrap()[&slot(1155, 0)], first);
        make(&host.inner, server).await;
        assert_eq!(current(root), ["1155", "0\n", "0\n"]);
        says.say_no(is_done);
        rejected(host.inner.release_devices(server, &BTreeSet::new()).await);
        // It stays written down as the server's until it is nothing again.
        assert_eq!(host.inner.seated_vgpus().await.unwrap(), [(slot(1155, 0), first)].into());
        drop(host);
        let host = says.host(root).await;
        host.inner.release_devices(server, &BTreeSet::new()).await.unwrap();
        assert_eq!(current(root), ["0", "0\n", "0\n"]);
        assert_eq!(host.inner.seated_vgpus().await.unwrap(), BTreeMap::new());
    }
}
