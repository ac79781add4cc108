//! Seed disks, read by others than who wrote them.

use adapters_kvm::{storage::seed, tool::Tool};

const FILES: [(&str, &str); 3] = [
    ("meta-data", "{\"instance-id\": \"i-1\"}\n"),
    ("network-config", "{\"version\": 2}\n"),
    ("user-data", "#!/bin/sh\necho done\n"),
];

#[tokio::test]
async fn others_read_the_label_and_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("seed.img");
    seed::write(&path, FILES).await.unwrap();
    let name = path.to_str().unwrap();
    let label = Tool::new("blkid", ["-p", "-s", "LABEL", "-s", "TYPE", "-o", "export", name]);
    let label = label.text().await.unwrap();
    assert!(label.contains("LABEL=CIDATA\n") && label.contains("TYPE=vfat\n"), "{label}");
    for (file, content) in FILES {
        let read = Tool::new("mtype", ["-i", name, &format!("::{file}")]);
        assert_eq!(read.text().await.unwrap(), content);
    }
    let names = Tool::new("mdir", ["-b", "-i", name, "::"]).text().await.unwrap();
    assert_eq!(names, "::/meta-data\n::/network-config\n::/user-data\n");
}

#[tokio::test]
async fn it_is_replaced_as_a_whole_and_read_by_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("seed.img");
    seed::write(&path, FILES).await.unwrap();
    let first = std::fs::read(&path).unwrap();
    seed::write(&path, FILES).await.unwrap();
    assert!(std::fs::read(&path).unwrap() == first);
    seed::write(&path, [("user-data", "other")]).await.unwrap();
    assert!(std::fs::read(&path).unwrap() != first);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn one_file_is_replaced_in_place_and_what_was_cut_off_goes_on_from_its_copy() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("seed.img");
    seed::write(&path, FILES).await.unwrap();
    let before = std::fs::read(&path).unwrap();
    let file = std::fs::metadata(&path).unwrap().ino();
    let read = async |name: &str| {
        let text = Tool::new("mtype", ["-i", path.to_str().unwrap(), &format!("::{name}")]);
        text.text().await.unwrap()
    };
    let long = "{\"version\": 2, \"ethernets\": {}}\n".repeat(99);
    seed::replace(&path, "network-config", &long).await.unwrap();
    assert_eq!(read("network-config").await, long);
    assert_eq!(read("user-data").await, FILES[2].1);
    assert_eq!(std::fs::metadata(&path).unwrap().ino(), file, "a machine has it open");
    let after = std::fs::read(&path).unwrap();
    // Cut off while it was written: the copy beside it is whole.
    std::fs::write(folder.path().join("seed.img.next"), &after).unwrap();
    std::fs::write(&path, &after[..5_000]).unwrap();
    seed::replace(&path, "network-config", FILES[1].1).await.unwrap();
    assert!(std::fs::read(&path).unwrap() == before, "the same files, the same bytes");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    seed::remove(&path).await.unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    assert!(seed::replace(&path, "network-config", "").await.is_err());
}

#[test]
fn equal_files_give_equal_bytes_and_too_much_is_refused() {
    assert!(seed::image(FILES).unwrap() == seed::image(FILES).unwrap());
    let large = "#".repeat(65_536);
    let image = seed::image([("user-data", large.as_str()), ("vendor-data", &large)]).unwrap();
    assert_eq!(image.len(), seed::SIZE_BYTES);
    let more = "#".repeat(seed::SIZE_BYTES);
    assert!(seed::image([("user-data", more.as_str())]).is_err());
}
