//! Servers that one installation backs up and another has again: two ledgers that share nothing but a store that
//! speaks S3, which is a third party's stand-in. Their hosts are in memory, and their disks are files: every byte of
//! them goes to the store and comes back.

use std::{
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use adapters_backup::{
    Asked,
    chunk::BYTES_USUAL,
    port::{S3Stores, made, open},
    source, target,
};
use adapters_clouds::testing::Hand;
use adapters_sim::SimHosts;
use async_trait::async_trait;
use commands::{
    ledger::{Ledger, Ports},
    ports::{DriverFault, HostDriver, HostTask, Hosts, Report},
};
use domain::compute::{
    backup_set::{BackupSet, Taken},
    disk::Source,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::{
    aws::server_at,
    backups::detail,
    world::{World, small},
};

/// Hosts in memory whose disks are files of a folder.
struct WithFiles {
    hosts: SimHosts,
    folder: PathBuf,
}

struct HostWithFiles {
    host: Arc<dyn HostDriver>,
    folder: PathBuf,
}

impl Hosts for WithFiles {
    fn driver(&self, host: Uuid) -> Option<Arc<dyn HostDriver>> {
        let host = self.hosts.driver(host)?;
        Some(Arc::new(HostWithFiles { host, folder: self.folder.clone() }))
    }
}

fn file_of(folder: &Path, disk: Uuid) -> PathBuf {
    folder.join(format!("{disk}.raw"))
}

fn told(fault: adapters_backup::Fault) -> DriverFault {
    adapters_backup::port::driver_fault(&fault)
}

impl HostWithFiles {
    /// All disks of a server are put into the store.
    async fn take(&self, task: &HostTask) -> Result<Report, DriverFault> {
        let set: BackupSet = serde_json::from_value(task.subject.clone()).unwrap();
        let store = open(&task.stores[&set.store])?;
        let mut taken = Taken { quiesced: false, made: [].into() };
        for member in set.members() {
            let disk = source::file::RawFile::open(&file_of(&self.folder, member.disk)).await;
            let asked = Asked {
                backup: member.backup,
                disk: member.disk,
                parent: None,
                checkpoint: None,
                taken_at: set.taken_at,
                chunk_bytes: BYTES_USUAL,
            };
            let manifest = store.take(&asked, &disk.map_err(told)?).await.map_err(told)?;
            taken.made.insert(member.disk, made(&manifest));
        }
        let body = json!({"number": task.key.number, "taken": taken});
        Ok(Report { verb: "confirm", body })
    }

    /// Disks that are made from a backup are written, and are new ones for the host in memory.
    async fn restore(&self, task: &HostTask) -> Result<HostTask, DriverFault> {
        let mut task = task.clone();
        for disk in task.state.home.iter_mut().flat_map(|home| &mut home.parts.disks) {
            let path = file_of(&self.folder, disk.id);
            let size = disk.size_gib << 30;
            match disk.source.take() {
                Some(Source::Backup { backup, disk: of, store, digest }) if !path.exists() => {
                    let store = open(&task.stores[&store])?;
                    let part = path.with_extension("part");
                    let target = target::RawFile::create(&part, size).await.map_err(told)?;
                    let read = store.restore((of, backup), Some(&digest), &target).await;
                    read.map_err(told)?;
                    std::fs::rename(&part, &path).unwrap();
                }
                None if !path.exists() => {
                    std::fs::File::create(&path).unwrap().set_len(size).unwrap();
                }
                _ => {}
            }
        }
        Ok(task)
    }
}

#[async_trait]
impl HostDriver for HostWithFiles {
    fn epoch(&self) -> u64 {
        self.host.epoch()
    }

    async fn carry_out(&self, task: &HostTask) -> Result<Report, DriverFault> {
        let order = task.order["type"].as_str().unwrap();
        match (task.key.stream.kind.as_str(), order) {
            ("backup-set", "take") => self.take(task).await,
            ("server", "launch") => self.host.carry_out(&self.restore(task).await?).await,
            _ => self.host.carry_out(task).await,
        }
    }
}

/// An installation of its own: its log, its views, its keys, its hosts.
struct Cluster {
    world: World,
    disks: TempDir,
}

impl Cluster {
    async fn new(host: &str) -> Self {
        let mut world = World::empty(small());
        let disks = tempfile::tempdir().unwrap();
        let hosts = WithFiles { hosts: world.hosts.clone(), folder: disks.path().to_owned() };
        world.ledger = Ledger::new(Ports {
            backups: Arc::new(S3Stores),
            hosts: Arc::new(hosts),
            ..world.ledger.ports.clone()
        });
        world.host(host, 1, 4, 4_096).await;
        Self { world, disks }
    }

    async fn store(&self, bucket: &str, key: &str) -> Uuid {
        let body = json!({
            "name": "vault",
            "place": {"endpoint": stand_in(), "bucket": bucket, "prefix": "of both/"},
            "credential": {
                "access_key_id": "AKIASKYLEDGERTEST00", "secret_access_key": "x",
                "encryption_key": key.repeat(32),
            },
        });
        let id = self.world.send("backup-store", None, "create", body).await.unwrap().id;
        self.world.settle().await;
        assert_eq!(self.world.status(id).await, "ready");
        id
    }

    async fn import(&self, store: Uuid) -> Value {
        self.world.through("backup-store", store, "import", json!({})).await;
        self.world.row(store).await["state"]["last_import"][1].clone()
    }

    async fn network(&self, net: &str) -> Uuid {
        let segment = json!({"name": "blue", "medium": "bridge", "bridge": "br0"});
        let segment = self.world.send("segment", None, "define", segment).await.unwrap().id;
        let body = json!({"name": net, "segment": segment, "v4": {"net": net}});
        self.world.send("network", None, "define", body).await.unwrap().id
    }

    async fn disks(&self, server: Uuid) -> Vec<PathBuf> {
        let disks = self.world.server(server).await.home.unwrap().parts.disks;
        disks.iter().map(|disk| file_of(self.disks.path(), disk.id)).collect()
    }
}

fn stand_in() -> String {
    server_at("SKYLEDGER_TEST_AWS")
}

async fn bucket() -> String {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let name = format!("across-{nanos}");
    let made = Hand::new(&stand_in()).object("PUT", &name, Vec::new()).await.unwrap();
    assert_eq!(made.status, 200, "{made:?}");
    name
}

/// Something that no two places of a disk have in common, and that does not compress to nothing.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

/// So much is compared at a time, in bytes.
const PIECE: usize = 16 << 20;

/// Whether two disks have the same bytes, all of them; and how many of those are not zero.
fn compare(one: &Path, other: &Path) -> (bool, u64) {
    let (one, other) = (std::fs::File::open(one).unwrap(), std::fs::File::open(other).unwrap());
    let size = one.metadata().unwrap().len();
    if size != other.metadata().unwrap().len() {
        return (false, 0);
    }
    let (mut a, mut b, zero) = (vec![0; PIECE], vec![0; PIECE], vec![0; PIECE]);
    let mut written = 0;
    for at in (0..size).step_by(PIECE) {
        one.read_exact_at(&mut a, at).unwrap();
        other.read_exact_at(&mut b, at).unwrap();
        if a != b {
            return (false, written);
        }
        if a != zero {
            written += a.iter().map(|byte| u64::from(*byte != 0)).sum::<u64>();
        }
    }
    (true, written)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_ledger_has_a_whole_server_again_from_a_store_over_s3() {
    let bucket = bucket().await;
    let here = Cluster::new("kvm-1").await;
    let (store, network) = (here.store(&bucket, "0a").await, here.network("10.0.0.0/24").await);
    let body = json!({
        "name": "shop-db", "spec": {"vcpus": 2, "memory_mib": 128}, "tags": {"team": "shop"},
        "firmware": "uefi", "userdata": "#!/bin/sh\necho a-secret-of-the-guest\n",
        "disks": [{"size_gib": 1, "format": "raw"}, {"size_gib": 1}],
        "nics": [{
            "network": network, "mac": "52:54:00:aa:00:01", "quota": {"egress_bytes": 1_000_000},
            "v4": {"type": "named", "data": {"address": "10.0.0.77"}},
        }],
    });
    let db = here.world.send("server", None, "launch", body).await.unwrap().id;
    here.world.settle().await;
    let ours = here.disks(db).await;
    for (at, path) in ours.iter().enumerate() {
        let disk = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        // Over the edges of chunks, and at the very end.
        for (seed, place, length) in
            [(1, 0, 700_001), (2, (4 << 20) - 5, 1_000_000), (3, (1 << 30) - 4_097, 4_097)]
        {
            disk.write_all_at(&noise(seed + 10 * at as u64, length), place).unwrap();
        }
    }
    let body = json!({"name": "monday", "server": db, "store": store});
    let set = here.world.send("backup-set", None, "create", body).await.unwrap().id;
    here.world.settle().await;
    assert_eq!(here.world.status(set).await, "available", "{}", here.world.row(set).await);

    // What is written afterwards is in no backup, and the first installation is of no use any more.
    let kept = tempfile::tempdir().unwrap();
    let was: Vec<_> = ours
        .iter()
        .enumerate()
        .map(|(at, path)| {
            let copy = kept.path().join(at.to_string());
            std::fs::rename(path, &copy).unwrap();
            copy
        })
        .collect();
    let before = here.world.server(db).await.home.unwrap();
    let recorded = here.world.row(set).await["state"].clone();
    drop(here);

    let there = Cluster::new("kvm-9").await;
    let store = there.store(&bucket, "0a").await;
    let sum = there.import(store).await;
    let found = json!({"listed": 2, "new": 2, "unreadable": [], "new_sets": 1});
    assert_eq!(sum, found);
    let known = there.world.row(set).await;
    assert_eq!(known["status"], "available");
    for field in ["name", "server", "taken", "taken_at"] {
        assert_eq!(known["state"][field], recorded[field], "{field}");
    }
    assert_eq!(known["state"]["source"]["blueprint"], recorded["source"]["blueprint"]);
    assert!(!known.to_string().contains("a-secret-of-the-guest"));

    let launch =
        async || there.world.send("server", None, "launch", json!({"backup_set": set})).await;
    assert!(detail(launch().await).contains("no network here"));
    let network = there.network("10.0.0.0/16").await;
    let again = launch().await.unwrap().id;
    there.world.settle().await;
    assert_eq!(there.world.row(again).await["status"], "running");
    let home = there.world.server(again).await.home.unwrap();
    assert_eq!((&home.name, &home.spec), (&before.name, &before.spec));
    assert_eq!((&home.tags, home.parts.firmware), (&before.tags, before.parts.firmware));
    let (nic, old) = (&home.parts.nics[0], &before.parts.nics[0]);
    assert_eq!((nic.network, nic.mac, nic.quota), (network, old.mac, old.quota));
    assert_eq!(nic.addresses[0].addr(), old.addresses[0].addr());
    let theirs = there.disks(again).await;
    assert_eq!(theirs.len(), 2);
    for (was, is) in was.iter().zip(&theirs) {
        let (same, written) = compare(was, is);
        assert!(same, "{} and {} differ", was.display(), is.display());
        assert!(written > 1_600_000, "{written}");
    }
    assert!(!compare(&theirs[0], &theirs[1]).0, "each has its own");

    // Whoever has another key finds that there is something, and reads nothing of it.
    let third = Cluster::new("kvm-1").await;
    let store = third.store(&bucket, "0b").await;
    let sum = third.import(store).await;
    assert_eq!((&sum["new"], &sum["new_sets"]), (&json!(0), &Value::Null));
    assert_eq!(sum["unreadable"].as_array().unwrap().len(), 3, "{sum}");
}
