//! Disks as files, by qemu-img.

use std::path::{Path, PathBuf};

use adapters_kvm::{
    storage::{
        StorageFault,
        directory::{Directory, Origin},
        qemu_img::Format,
    },
    tool::Tool,
};
use tempfile::TempDir;
use uuid::Uuid;

use crate::crash::die_everywhere;

const MIB: u64 = 1 << 20;

fn id(number: usize) -> Uuid {
    Uuid::from_u128(number as u128)
}

async fn storage() -> (TempDir, Directory) {
    let folder = tempfile::tempdir().unwrap();
    let storage = Directory::open(folder.path()).await.unwrap();
    (folder, storage)
}

/// A raw image of 2 MiB with something in it.
fn image(folder: &Path) -> PathBuf {
    let path = folder.join("image");
    let bytes: Vec<u8> = (0..2 * MIB).map(|at| (at % 251) as u8).collect();
    std::fs::write(&path, bytes).unwrap();
    path
}

fn origin(path: &Path) -> Origin<'_> {
    Origin { path, format: Format::Raw, size_bytes: 2 * MIB }
}

/// All that a disk reads as.
async fn contents(folder: &Path, path: &Path, format: Format) -> Vec<u8> {
    let out = folder.join("contents");
    let (from, to) = (path.to_str().unwrap(), out.to_str().unwrap());
    let words = ["convert", "-f", format.name(), "-O", "raw", from, to];
    Tool::new("qemu-img", words).run().await.unwrap();
    std::fs::read(out).unwrap()
}

fn names(storage: &Directory) -> Vec<String> {
    let entries = std::fs::read_dir(storage.folder()).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn an_empty_disk_is_made_once_grown_and_removed() {
    let (_folder, storage) = storage().await;
    for format in Format::ALL {
        let made = storage.create(id(1), format, 8 * MIB).await.unwrap();
        assert_eq!((made.format, made.size_bytes), (format, 8 * MIB));
        assert!(made.taken_bytes < MIB && made.backing.is_empty(), "{made:?}");
        assert_eq!(storage.create(id(1), format, 8 * MIB).await.unwrap(), made, "again");
        assert_eq!(storage.list().await.unwrap(), [(id(1), format)]);

        let grown = storage.grow(id(1), 16 * MIB).await.unwrap();
        assert_eq!(grown.size_bytes, 16 * MIB);
        assert_eq!(storage.grow(id(1), 16 * MIB).await.unwrap(), grown, "again");
        let smaller = storage.grow(id(1), 8 * MIB).await.unwrap_err();
        assert!(matches!(smaller, StorageFault::Smaller { .. }), "{smaller}");
        assert_eq!(storage.inspect(id(1)).await.unwrap().size_bytes, 16 * MIB);

        storage.delete(id(1)).await.unwrap();
        storage.delete(id(1)).await.unwrap();
        assert_eq!(names(&storage), [""; 0]);
    }
    let gone = storage.inspect(id(1)).await.unwrap_err();
    assert!(matches!(gone, StorageFault::Missing(_)), "{gone}");
}

#[tokio::test]
async fn what_is_there_in_another_way_is_left_alone() {
    let (folder, storage) = storage().await;
    let image = image(folder.path());
    storage.create(id(1), Format::Raw, 8 * MIB).await.unwrap();
    for fault in [
        storage.create(id(1), Format::Qcow2, 8 * MIB).await.unwrap_err(),
        storage.create(id(1), Format::Raw, 4 * MIB).await.unwrap_err(),
        storage.create(id(1), Format::Raw, 16 * MIB).await.unwrap_err(),
        storage.create_on(id(1), origin(&image), 8 * MIB).await.unwrap_err(),
    ] {
        assert!(matches!(fault, StorageFault::Differs { .. }), "{fault}");
    }
    assert_eq!(names(&storage), [format!("{}.raw", id(1))]);
    for size in [0, 511, 8 * MIB + 1] {
        let fault = storage.create(id(2), Format::Raw, size).await.unwrap_err();
        assert!(matches!(fault, StorageFault::Unfit(_)), "{fault}");
    }
    let fault = storage.copy(id(2), Format::Raw, origin(&image), MIB).await.unwrap_err();
    assert!(matches!(fault, StorageFault::Smaller { .. }), "{fault}");
    assert_eq!(names(&storage), [format!("{}.raw", id(1))]);
}

#[tokio::test]
async fn a_disk_from_an_image_reads_as_the_image() {
    let (folder, storage) = storage().await;
    let image = image(folder.path());
    let mut expected = std::fs::read(&image).unwrap();
    expected.resize(4 * MIB as usize, 0);

    let on = storage.create_on(id(1), origin(&image), 4 * MIB).await.unwrap();
    assert_eq!(on.backing, [image.clone()]);
    assert!(on.taken_bytes < MIB, "{on:?}");
    for format in Format::ALL {
        let copy = storage.copy(id(2), format, origin(&image), 4 * MIB).await.unwrap();
        assert_eq!((copy.size_bytes, copy.backing.len()), (4 * MIB, 0));
        assert!(contents(folder.path(), &copy.path, format).await == expected, "{format}");
        storage.delete(id(2)).await.unwrap();
        let other = storage.duplicate(id(1), id(3), format).await.unwrap();
        assert_eq!((other.size_bytes, other.backing.len()), (4 * MIB, 0));
        assert!(contents(folder.path(), &other.path, format).await == expected, "{format}");
        storage.delete(id(3)).await.unwrap();
    }
}

#[tokio::test]
async fn what_a_guest_writes_into_a_raw_disk_is_no_header() {
    let (folder, storage) = storage().await;
    let secret = folder.path().join("secret");
    std::fs::write(&secret, vec![7; MIB as usize]).unwrap();
    let disk = storage.create(id(1), Format::Raw, 8 * MIB).await.unwrap();
    let made = storage
        .create_on(id(9), Origin { path: &secret, format: Format::Raw, size_bytes: MIB }, 8 * MIB)
        .await
        .unwrap();
    // As a guest would: the first bytes of a qcow2 whose backing file is a file of the host.
    let header = std::fs::read(&made.path).unwrap();
    let mut bytes = std::fs::read(&disk.path).unwrap();
    bytes[..header.len()].copy_from_slice(&header);
    std::fs::write(&disk.path, &bytes).unwrap();

    let seen = storage.inspect(id(1)).await.unwrap();
    assert_eq!((seen.size_bytes, seen.backing.len()), (8 * MIB, 0));
    let copy = storage.duplicate(id(1), id(2), Format::Qcow2).await.unwrap();
    assert!(contents(folder.path(), &copy.path, Format::Qcow2).await == bytes);
}

#[tokio::test]
async fn after_a_crash_at_any_step_the_same_is_done_again() {
    let (folder, storage) = storage().await;
    let image = image(folder.path());
    let wanted = std::fs::read(&image).unwrap();
    // A disk of 3 MiB from an image of 2 MiB: made, copied, grown, renamed.
    let steps = die_everywhere(
        |n| storage.copy(id(n), Format::Qcow2, origin(&image), 3 * MIB),
        async |n| {
            let disk = storage.copy(id(n), Format::Qcow2, origin(&image), 3 * MIB).await.unwrap();
            let is = contents(folder.path(), &disk.path, Format::Qcow2).await;
            assert!(is.starts_with(&wanted) && is.len() == 3 * MIB as usize, "{n}");
            assert_eq!(names(&storage), [format!("{}.qcow2", id(n))], "{n}");
            storage.delete(id(n)).await.unwrap();
        },
    )
    .await;
    assert!(steps > 5, "{steps}");
}

#[tokio::test]
async fn the_room_is_the_file_systems() {
    let (folder, storage) = storage().await;
    let capacity = storage.capacity().unwrap();
    let words = ["--output=size", "-B1", folder.path().to_str().unwrap()];
    let df = Tool::new("df", words).text().await.unwrap();
    let total: u64 = df.lines().last().unwrap().trim().parse().unwrap();
    assert_eq!(capacity.total_bytes, total);
    assert!(capacity.free_bytes <= total);
}

/// Writes a byte over the first MiB of a disk.
async fn write(path: &Path, byte: u8) {
    let command = format!("write -P {byte} 0 1M");
    Tool::new("qemu-io", ["-f", "qcow2", "-c", &command, path.to_str().unwrap()])
        .run()
        .await
        .unwrap();
}

#[tokio::test]
async fn a_disk_goes_back_to_a_snapshot_and_is_cloned_from_one() {
    let (folder, storage) = storage().await;
    let image = image(folder.path());
    let disk = storage.create_on(id(1), origin(&image), 4 * MIB).await.unwrap();
    let first = contents(folder.path(), &disk.path, Format::Qcow2).await;
    for _ in 0..2 {
        storage.take_snapshot(id(1), id(11)).await.unwrap();
    }
    write(&disk.path, 9).await;
    let grown = storage.grow(id(1), 8 * MIB).await.unwrap();
    storage.take_snapshot(id(1), id(12)).await.unwrap();
    let second = contents(folder.path(), &disk.path, Format::Qcow2).await;
    write(&disk.path, 8).await;
    assert_eq!(storage.snapshots(id(1)).await.unwrap(), [id(11), id(12)]);

    // It is as large as it has become, also where it was smaller then.
    let padded = |bytes: &[u8]| [bytes, &vec![0; 8 * MIB as usize - bytes.len()]].concat();
    for format in Format::ALL {
        let copy = storage.clone_snapshot((id(1), id(11)), id(3), format).await.unwrap();
        assert_eq!((copy.size_bytes, copy.backing.len()), (8 * MIB, 0));
        assert!(contents(folder.path(), &copy.path, format).await == padded(&first), "{format}");
        storage.delete(id(3)).await.unwrap();
    }
    for (snapshot, wanted) in [(id(12), second), (id(11), padded(&first))] {
        let back = storage.roll_back(id(1), snapshot).await.unwrap();
        assert_eq!((back.size_bytes, &back.backing), (8 * MIB, &grown.backing));
        assert!(contents(folder.path(), &disk.path, Format::Qcow2).await == wanted, "{snapshot}");
    }
    for _ in 0..2 {
        storage.delete_snapshot(id(1), id(12)).await.unwrap();
    }
    assert_eq!(storage.snapshots(id(1)).await.unwrap(), [id(11)]);
    let gone = storage.roll_back(id(1), id(12)).await.unwrap_err();
    assert!(matches!(gone, StorageFault::Missing(_)), "{gone}");
    storage.create(id(2), Format::Raw, MIB).await.unwrap();
    let raw = storage.take_snapshot(id(2), id(11)).await.unwrap_err();
    assert!(matches!(raw, StorageFault::Unfit(_)), "{raw}");
}

#[tokio::test]
async fn a_snapshot_that_dies_at_any_step_is_taken_gone_back_to_and_removed_again() {
    let (folder, storage) = storage().await;
    let image = image(folder.path());
    let disk = storage.create_on(id(1), origin(&image), 4 * MIB).await.unwrap();
    let wanted = contents(folder.path(), &disk.path, Format::Qcow2).await;
    let everything = async || {
        storage.take_snapshot(id(1), id(11)).await?;
        storage.roll_back(id(1), id(11)).await?;
        storage.delete_snapshot(id(1), id(11)).await
    };
    let steps = die_everywhere(
        async |_| everything().await,
        async |n| {
            // A tool that was killed leaves nothing that the next cannot read.
            everything().await.unwrap();
            assert!(storage.snapshots(id(1)).await.unwrap().is_empty(), "{n}");
            let is = contents(folder.path(), &disk.path, Format::Qcow2).await;
            assert!(is == wanted, "{n}");
            qemu_check(&disk.path).await;
        },
    )
    .await;
    assert!(steps > 5, "{steps}");
}

/// A disk has no errors. What a killed run has left unused takes room and harms nobody.
async fn qemu_check(path: &Path) {
    let words = ["check", "-q", "-f", "qcow2", "-r", "leaks", path.to_str().unwrap()];
    Tool::new("qemu-img", words).run().await.unwrap();
}
