//! Disks as logical volumes, by LVM itself; their devices are loop devices.

use std::{os::unix::fs::FileExt as _, path::Path};

use adapters_kvm::storage::{
    StorageFault,
    any::Storage,
    directory::{Directory, Origin},
    qemu_img::Format,
    volume_group::VolumeGroup,
};
use uuid::Uuid;

use crate::{crash::die_after, volumes::Volumes};

const MIB: u64 = 1 << 20;
/// What a group of the tests is cut in.
const EXTENT: u64 = 4 * MIB;

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

/// A group of 60 MiB whose every byte was somebody's.
async fn group() -> Option<(Volumes, VolumeGroup)> {
    let volumes = Volumes::of_tests(64 * MIB).await?;
    let file = std::fs::File::options().write(true).open(volumes.file()).unwrap();
    let used = vec![0xaa; EXTENT as usize];
    for at in 0..15 {
        file.write_all_at(&used, MIB + at * EXTENT).unwrap();
    }
    file.sync_all().unwrap();
    let group = volumes.groups().there().await.unwrap().remove(&Volumes::storage()).unwrap();
    Some((volumes, group))
}

/// What a disk reads as: of each MiB the byte that all of it has.
fn bytes(path: &Path) -> Vec<u8> {
    let all = std::fs::read(path).unwrap();
    all.chunks(MIB as usize)
        .map(|part| {
            assert!(part.iter().all(|byte| *byte == part[0]), "{}", path.display());
            part[0]
        })
        .collect()
}

fn image(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("image");
    std::fs::write(&path, vec![7; 2 * MIB as usize]).unwrap();
    path
}

fn origin(path: &Path) -> Origin<'_> {
    Origin { path, format: Format::Raw, size_bytes: 2 * MIB }
}

/// A disk with as many MiB of sevens, and zeroes to its end.
fn sevens(count: usize, mib: usize) -> Vec<u8> {
    let mut wanted = vec![0; mib];
    wanted[..count].fill(7);
    wanted
}

#[tokio::test]
async fn a_disk_is_zeroes_where_somebody_elses_was_and_nothing_else_is_touched() {
    let Some((volumes, group)) = group().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    let facts = group.facts().await.unwrap();
    assert_eq!((facts.size_mib, facts.free_mib, facts.extent_kib), (60, 60, 4_096));
    assert_eq!(facts.ours_mib, Some(0));

    // Somebody else's, one of which has a name as ours.
    let theirs = format!("sk-{}", id(9));
    for name in ["theirs", theirs.as_str()] {
        let words = ["-y", "-an", "-Zn", "-Wn", "-L", "4m", "-n", name, volumes.name()];
        volumes.lvm("lvcreate", &words).await.unwrap();
    }

    let disk = group.create(id(1), 8 * MIB).await.unwrap();
    assert_eq!((disk.format, disk.size_bytes, disk.taken_bytes), (Format::Raw, 8 * MIB, 8 * MIB));
    assert_eq!(bytes(&disk.path), [0; 8]);
    std::fs::File::options().write(true).open(&disk.path).unwrap().write_all_at(&[9], 0).unwrap();
    assert_eq!(group.create(id(1), 8 * MIB).await.unwrap(), disk, "it is there");
    let first = std::fs::read(&disk.path).unwrap()[0];
    assert_eq!(first, 9, "and is as it was");
    let fault = group.create(id(1), 12 * MIB).await.unwrap_err();
    assert!(matches!(fault, StorageFault::Differs { .. }), "{fault}");
    let fault = group.create(id(2), 6 * MIB).await.unwrap_err();
    assert!(matches!(fault, StorageFault::Unfit(_)), "{fault}");
    let fault = group.create(id(2), 60 * MIB).await.unwrap_err();
    assert!(fault.to_string().contains("bytes left"), "{fault}");
    group.delete(id(1)).await.unwrap();

    let fault = group.copy(id(3), (origin(&image), None), MIB).await.unwrap_err();
    assert!(matches!(fault, StorageFault::Smaller { .. }), "{fault}");
    let copy = group.copy(id(3), (origin(&image), None), 8 * MIB).await.unwrap();
    assert_eq!(bytes(&copy.path), sevens(2, 8), "and not what was there before");
    let grown = group.grow(id(3), 12 * MIB).await.unwrap();
    assert_eq!(bytes(&grown.path), sevens(2, 12));
    assert_eq!(group.grow(id(3), 12 * MIB).await.unwrap(), grown);
    let fault = group.grow(id(3), 8 * MIB).await.unwrap_err();
    assert!(matches!(fault, StorageFault::Smaller { .. }), "{fault}");
    assert_eq!(group.list().await.unwrap(), [format!("sk-{}", id(3))]);
    let facts = group.facts().await.unwrap();
    assert_eq!(facts.ours_mib, Some(12), "what others have is not ours");

    for act in [group.create(id(9), 4 * MIB).await.map(drop), group.delete(id(9)).await] {
        let fault = act.unwrap_err();
        assert!(fault.to_string().contains("left alone"), "{fault}");
    }
    assert!(matches!(group.inspect(id(4)).await.unwrap_err(), StorageFault::Missing(_)));
    for _ in 0..2 {
        group.delete(id(3)).await.unwrap();
    }
    let mut left = vec!["theirs".to_owned(), theirs];
    left.sort();
    assert_eq!(volumes.names().await, left);
}

#[tokio::test]
async fn a_disk_is_made_again_in_one_step_and_found_after_a_start_of_the_host() {
    let Some((volumes, group)) = group().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    group.create(id(1), 8 * MIB).await.unwrap();
    let device = group.begin_again(id(1), 8 * MIB).await.unwrap();
    std::fs::File::options().write(true).open(&device).unwrap().write_all_at(&[5], 0).unwrap();
    // Cut off there, it is the old one, also when somebody begins once more.
    assert_eq!(bytes(&group.inspect(id(1)).await.unwrap().path), [0; 8]);
    let again = group.make_again(id(1), origin(&image)).await.unwrap();
    volumes.deactivate_all().await;
    assert_eq!(group.inspect(id(1)).await.unwrap(), again, "its device is not needed for that");
    assert_eq!(bytes(&group.activate(id(1)).await.unwrap().path), sevens(2, 8));

    // Cut off when it was whole: the new one takes its place when it is looked for.
    let device = group.begin_again(id(1), 8 * MIB).await.unwrap();
    std::fs::write(&device, vec![3; MIB as usize]).unwrap();
    let whole = format!("{}/sk-{}.again", volumes.name(), id(1));
    volumes.lvm("lvchange", &["--deltag", "skyledger-unfinished", &whole]).await.unwrap();
    volumes.deactivate_all().await;
    let is = group.activate(id(1)).await.unwrap();
    assert_eq!(bytes(&is.path), [3, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(volumes.names().await, [format!("sk-{}", id(1))]);

    // Grown, and cut off before what was added was zeroed.
    let name = format!("{}/sk-{}", volumes.name(), id(1));
    let tag = format!("skyledger-zero-from={}", 8 * MIB);
    volumes.lvm("lvchange", &["--addtag", &tag, &name]).await.unwrap();
    volumes.lvm("lvextend", &["-L", "12m", &name]).await.unwrap();
    let is = group.activate(id(1)).await.unwrap();
    assert_eq!(bytes(&is.path), [3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    group.delete(id(1)).await.unwrap();
    assert!(volumes.names().await.is_empty());
}

#[tokio::test]
async fn whatever_is_cut_off_is_done_by_the_next_run() {
    let Some((volumes, group)) = group().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    let all = async || {
        group.copy(id(1), (origin(&image), None), 8 * MIB).await?;
        group.grow(id(1), 12 * MIB).await
    };
    let mut cut = 0;
    loop {
        let done = die_after(cut, all()).await.is_some();
        // What was made with another size by then is no longer made, and grows.
        if group.has(id(1)).await.unwrap() {
            group.grow(id(1), 12 * MIB).await.unwrap();
        } else {
            all().await.unwrap();
        }
        assert_eq!(bytes(&group.activate(id(1)).await.unwrap().path), sevens(2, 12), "{cut}");
        if die_after(cut, group.delete(id(1))).await.is_none() {
            group.delete(id(1)).await.unwrap();
        }
        assert!(volumes.names().await.is_empty(), "{cut}");
        if done {
            break;
        }
        cut += 11;
    }
    assert!(cut > 20, "{cut}");
}

/// All of a disk of 8 MiB becomes this byte, as its guest would write it.
fn write(path: &Path, byte: u8) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&vec![byte; 8 * MIB as usize], 0).unwrap();
    file.sync_all().unwrap();
}

#[tokio::test]
async fn a_snapshot_is_a_volume_beside_its_disk_that_is_gone_back_to_and_copied() {
    let Some((volumes, group)) = group().await else { return };
    let [one, two, three] = [id(0xa1), id(0xa2), id(0xa3)];
    let disk = group.create(id(1), 8 * MIB).await.unwrap();
    write(&disk.path, 1);
    for _ in 0..2 {
        group.take_snapshot(id(1), one).await.unwrap();
    }
    write(&disk.path, 2);
    group.take_snapshot(id(1), two).await.unwrap();
    write(&disk.path, 3);
    assert_eq!(group.snapshots(id(1)).await.unwrap(), [one, two]);
    let wanted = [format!("sk-{}", id(1)), format!("sks-{one}"), format!("sks-{two}")];
    assert_eq!(volumes.names().await, wanted);
    // Its disk, and for each of two all of that and what is written down of it, in whole extents.
    assert_eq!(group.facts().await.unwrap().ours_mib, Some(8 + 12 + 12));

    // What would lose them, and what LVM does not do with them.
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    for fault in [
        group.grow(id(1), 12 * MIB).await.map(drop),
        group.make_again(id(1), origin(&image)).await.map(drop),
        group.begin_again(id(1), MIB).await.map(drop),
    ] {
        let fault = fault.unwrap_err();
        assert!(fault.to_string().contains("has 2 snapshots"), "{fault}");
    }
    let missing = group.roll_back(id(1), three).await.unwrap_err();
    assert!(matches!(missing, StorageFault::Missing(_)), "{missing}");
    let missing = group.take_snapshot(id(2), three).await.unwrap_err();
    assert!(matches!(missing, StorageFault::Missing(_)), "{missing}");

    // After a start of the host, too; and the others stay what they are.
    volumes.deactivate_all().await;
    for (snapshot, byte) in [(one, 1), (two, 2), (one, 1)] {
        let is = group.roll_back(id(1), snapshot).await.unwrap();
        assert_eq!((bytes(&is.path), is.size_bytes), (vec![byte; 8], 8 * MIB));
    }
    volumes.deactivate_all().await;
    assert!(!volumes.device(&format!("sks-{one}")).exists(), "it has none when its disk has none");
    let (from, own) = ((id(1), two), Storage::Group(group.clone()));
    let copy = group.copy_snapshot(from, &own, (id(3), Format::Raw, 12 * MIB)).await.unwrap();
    assert_eq!(bytes(&copy.path), [2, 2, 2, 2, 2, 2, 2, 2, 0, 0, 0, 0]);
    group.delete(id(3)).await.unwrap();
    let directory = Directory::open(folder.path()).await.unwrap();
    let own = Storage::Folder(directory);
    let copy = group.copy_snapshot(from, &own, (id(3), Format::Raw, 8 * MIB)).await.unwrap();
    assert_eq!(bytes(&copy.path), [2; 8], "onto another storage");

    // Somebody else's that is called so, and no room.
    let theirs = format!("sks-{three}");
    let words = ["-y", "-an", "-Zn", "-Wn", "-L", "20m", "-n", &theirs, volumes.name()];
    volumes.lvm("lvcreate", &words).await.unwrap();
    for fault in [
        group.take_snapshot(id(1), three).await,
        group.delete_snapshot(id(1), three).await,
        group.roll_back(id(1), three).await.map(drop),
    ] {
        let fault = fault.unwrap_err();
        assert!(fault.to_string().contains("left alone"), "{fault}");
    }
    let fault = group.take_snapshot(id(1), id(0xa4)).await.unwrap_err();
    assert!(fault.to_string().contains("bytes left"), "{fault}");
    for _ in 0..2 {
        group.delete_snapshot(id(1), one).await.unwrap();
    }
    assert_eq!(group.snapshots(id(1)).await.unwrap(), [two]);
    group.delete(id(1)).await.unwrap();
    assert_eq!(volumes.names().await, [theirs], "the last goes with its disk");
}

#[tokio::test]
async fn whatever_of_a_snapshot_is_cut_off_is_done_by_the_next_run() {
    let Some((volumes, group)) = group().await else { return };
    let [one, two] = [id(0xa1), id(0xa2)];
    let disk = group.create(id(1), 8 * MIB).await.unwrap();
    let (mut cut, mut cuts) = (0, [None; 4]);
    while cuts.contains(&None) {
        let mut through = |what: usize, done: bool| {
            cuts[what] = cuts[what].or(done.then_some(cut));
        };
        write(&disk.path, 1);
        let done = die_after(cut, group.take_snapshot(id(1), one)).await.is_some();
        through(0, done);
        group.take_snapshot(id(1), one).await.unwrap();
        group.take_snapshot(id(1), two).await.unwrap();
        write(&disk.path, 2);
        let done = die_after(cut, group.roll_back(id(1), one)).await.is_some();
        through(1, done);
        group.roll_back(id(1), one).await.unwrap();
        assert_eq!(bytes(&disk.path), [1; 8], "{cut}");
        let done = die_after(cut, group.delete_snapshot(id(1), one)).await.is_some();
        through(2, done);
        group.delete_snapshot(id(1), one).await.unwrap();
        assert_eq!(group.snapshots(id(1)).await.unwrap(), [two], "{cut}");
        let done = die_after(cut, group.delete(id(1))).await.is_some();
        through(3, done);
        group.delete(id(1)).await.unwrap();
        assert!(volumes.names().await.is_empty(), "{cut}");
        group.create(id(1), 8 * MIB).await.unwrap();
        cut += 29;
    }
    assert!(cuts[0] > Some(29), "{cuts:?}");
}
