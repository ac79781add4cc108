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

#[test]
fn equal_files_give_equal_bytes_and_too_much_is_refused() {
    assert!(seed::image(FILES).unwrap() == seed::image(FILES).unwrap());
    let large = "#".repeat(65_536);
    let image = seed::image([("user-data", large.as_str()), ("vendor-data", &large)]).unwrap();
    assert_eq!(image.len(), seed::SIZE_BYTES);
    let more = "#".repeat(seed::SIZE_BYTES);
    assert!(seed::image([("user-data", more.as_str())]).is_err());
}
