//! The guide of images from outside: files sent to a stand-in for S3 through the server, one of them cut off
//! on its way, and a server made from one.

use std::{
    io::Write,
    net::TcpStream,
    path::Path,
    time::{Duration, Instant},
};

use adapters_clouds::testing::Hand;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{
    agent::awaited,
    says,
    server::{Server, Store, aws, exchange},
};

const PATIENCE: Duration = Duration::from_mins(1);
/// Two parts, and a little more.
const LARGE: usize = 33 << 20;

fn until(what: &str, done: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// How many uploads the stand-in has that are neither complete nor broken off.
fn begun(aws: &str) -> usize {
    let address = aws.strip_prefix("http://").unwrap().trim_end_matches('/');
    let answer = exchange(
        address,
        &format!(
            "GET /images?uploads HTTP/1.0\r\nhost: {address}\r\nauthorization: AWS4-HMAC-SHA256 \
             Credential=AKIASKYLEDGERTEST00/20260101/us-east-1/s3/aws4_request, \
             SignedHeaders=host, Signature=0\r\n\r\n"
        ),
    );
    assert!(answer.contains("ListMultipartUploadsResult"), "{answer}");
    answer.matches("<UploadId>").count()
}

/// Begins to send a file, and hangs up when the store has a part of it.
fn cut(server: &Server, aws: &str, path: &str, file: &[u8]) {
    let address = server.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\
         content-length: {}\r\n\r\n",
        server.token,
        file.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&file[..20 << 20]).unwrap();
    until("the first part is there", || begun(aws) == 1);
}

fn written(folder: &Path, name: &str, bytes: &[u8]) -> String {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn an_image_is_uploaded_and_a_server_made_from_it_as_the_guide_says() {
    let folder = tempfile::tempdir().unwrap();
    let more = ["--local-host", "here", "--simulated"];
    let server = Server::start_with(folder.path(), &Store::Embedded, &more);
    until("the host is ready", || server.json(&["get", "host", "here"])["status"] == "ready");
    let (aws, _turn) = aws();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let made = runtime.block_on(Hand::new(&aws).object("PUT", "images", Vec::new())).unwrap();
    assert_eq!(made.status, 200, "{made:?}");
    let small: Vec<u8> = (0..(1 << 20) + 512).map(|at: usize| (at % 251) as u8).collect();
    let path = written(folder.path(), "debian-13.img", &small);
    let none = server.run(&["image", "upload", &path]);
    assert_eq!(none.code, 2, "{}{}", none.out, none.err);
    says(&none.err, &["--store", "no backup store is ready"]);
    let text = format!(
        "name: vault\nplace: {{endpoint: \"{aws}\", bucket: images, prefix: skyledger/}}\n\
         credential: {{access_key_id: AKIASKYLEDGERTEST00, secret_access_key: x}}\n"
    );
    let vault = written(folder.path(), "vault.yaml", text.as_bytes());
    let ran = server.run(&["create", "backup-store", "--wait", "-f", &vault]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);

    let ran = server.run(&["image", "upload", &path]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    says(&ran.out, &["image debian-13 is there: "]);
    let again = server.run(&["image", "upload", &path, "--name", "other"]);
    assert_eq!(again.code, 0, "{}{}", again.out, again.err);
    says(&again.out, &["image debian-13 was there already: "]);
    let image = server.json(&["get", "image", "debian-13"]);
    let file = json!({"size_bytes": small.len(), "disk_bytes": small.len()});
    assert_eq!((&image["status"], &image["state"]["file"]), (&json!("defined"), &file), "{image}");
    let ran = server.run(&[
        "create",
        "server",
        "--wait",
        "--set",
        "name=web",
        "--set",
        "image=debian-13",
        "--set",
        "spec.vcpus=1",
        "--set",
        "spec.memory_mib=64",
        "--set",
        "disks=[{\"size_gib\":1}]",
    ]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    awaited(&server, "web", "running");
    // What is no image is refused here, before anything is sent.
    let mut backed = b"QFI\xfb\0\0\0\x03\0\0\0\0\0\0\x02\0".to_vec();
    backed.resize(4_096, 0);
    let listing = b"# Disk DescriptorFile\nRW 1 FLAT \"/etc/hostname\" 0\n".to_vec();
    for (name, bytes, why) in [
        ("a.vdi", [b"<<< ".as_slice(), &[0; 508]].concat(), "it is vdi: convert it first"),
        ("a.vmdk", listing, "it is not taken: its data is in other files"),
        ("b.qcow2", backed, "it is not taken: it has a backing file"),
    ] {
        let path = written(folder.path(), name, &bytes);
        let ran = server.run(&["image", "upload", &path]);
        assert_eq!(ran.code, 2, "{}{}", ran.out, ran.err);
        says(&ran.err, &[why]);
    }

    // One that is cut off leaves nothing, and is sent again.
    let large: Vec<u8> = (0..LARGE).map(|at| (at % 253) as u8).collect();
    let path = written(folder.path(), "large.raw", &large);
    let store = server.json(&["get", "backup-store", "vault"])["id"].clone();
    let body = json!({
        "name": "large", "source": {"store": store}, "format": "raw", "size_mib": 33,
        "sha256": format!("{:x}", Sha256::digest(&large)), "architecture": "x86_64",
        "os": "linux", "firmware": "bios", "min_disk_gib": 1,
    });
    let described = written(folder.path(), "large.json", body.to_string().as_bytes());
    let ran = server.run(&["create", "image", "-f", &described]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let image = server.json(&["get", "image", "large"]);
    assert_eq!(image["status"], "awaiting");
    let to = format!("/v1/images/{}/file", image["id"].as_str().unwrap());
    cut(&server, &aws, &to, &large);
    until("nothing of it is left", || begun(&aws) == 0);
    assert_eq!(server.json(&["get", "image", "large"])["status"], "awaiting");
    let ran = server.run(&["image", "upload", &path]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert_eq!(server.json(&["get", "image", "large"])["status"], "defined");
    assert_eq!(begun(&aws), 0);

    for name in ["large", "debian-13"] {
        let ran = server.run(&["retire", "image", name, "--wait"]);
        assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    }
    let ran = server.run(&["do", "backup-store", "retire", "vault"]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert_eq!(server.stop(), 0);
}
