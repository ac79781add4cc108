//! From a server that speaks TLS with a certificate of an authority of its own: `openssl` is both. Whom a process
//! trusts is said by its environment (`SSL_CERT_FILE`), so the test starts itself once more for each answer.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use tokio::io::AsyncReadExt as _;

use super::*;

const URL: &str = "SKYLEDGER_FETCHES";
const EXPECTED: &str = "SKYLEDGER_EXPECTS";

fn openssl(folder: &Path, words: &str) {
    let done = Command::new("openssl").args(words.split(' ')).current_dir(folder).output().unwrap();
    assert!(done.status.success(), "{words}: {}", String::from_utf8_lossy(&done.stderr));
}

/// An authority (`ca.pem`), and a certificate of it for an address.
fn certificates(folder: &Path) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(folder, &format!("req -x509 {key} -days 2 -keyout ca.key -out ca.pem -subj /CN=ca"));
    let name = "-subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1";
    openssl(folder, &format!("req {key} -keyout key.pem -out leaf.csr {name}"));
    let by = "-CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -copy_extensions copy";
    openssl(folder, &format!("x509 -req -in leaf.csr {by} -out leaf.pem"));
}

/// A server of the files of a folder. It ends with this.
struct Server(Child);

impl Server {
    fn start(folder: &Path) -> (Self, String) {
        let words = "s_server -accept 127.0.0.1:0 -cert leaf.pem -key key.pem -WWW";
        let mut server = Command::new("openssl")
            .args(words.split(' '))
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let told = BufReader::new(server.stdout.take().unwrap());
        let mut lines = told.lines().map_while(Result::ok);
        let at = lines.find_map(|line| line.strip_prefix("ACCEPT ").map(str::to_owned));
        (Self(server), at.expect("it says where it listens"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn an_image_comes_by_https_from_whom_this_host_trusts() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    certificates(root);
    let image: Vec<u8> = (0..3_000_000_u32).map(|at| (at.wrapping_mul(at) >> 7) as u8).collect();
    fs::write(root.join("image.raw"), image).unwrap();
    let (_server, at) = Server::start(root);
    let fetch = |trusted: &str, address: &str| {
        let done = Command::new(std::env::current_exe().unwrap())
            .args(["driver::fetch::tests::it_is_fetched_and_is_the_file", "--exact", "--nocapture"])
            .env("SSL_CERT_FILE", root.join(trusted))
            .env("SSL_CERT_DIR", root.join("none"))
            .env(URL, format!("{address}/image.raw"))
            .env(EXPECTED, root.join("image.raw"))
            .output()
            .unwrap();
        let said = [done.stdout, done.stderr].concat();
        (done.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    let (comes, said) = fetch("ca.pem", &format!("https://{at}"));
    assert!(comes && said.contains("1 passed"), "{said}");
    // Somebody else's word, and the same server under a name that its certificate does not have.
    let other = tempfile::tempdir().unwrap();
    certificates(other.path());
    fs::copy(other.path().join("ca.pem"), root.join("other.pem")).unwrap();
    let port = at.rsplit(':').next().unwrap();
    for (trusted, address) in
        [("other.pem", format!("https://{at}")), ("ca.pem", format!("https://localhost:{port}"))]
    {
        let (comes, said) = fetch(trusted, &address);
        assert!(!comes && said.contains("certificate"), "{trusted} {address}: {said}");
    }
}

/// What the test starts: a test that is none.
#[tokio::test]
async fn it_is_fetched_and_is_the_file() {
    let Ok(url) = std::env::var(URL) else { return };
    let address = Address(url);
    let mut got = Vec::new();
    match address.open().await {
        Ok(mut body) => drop(body.read_to_end(&mut got).await.unwrap()),
        Err(fault) => {
            let mut why: Option<&dyn std::error::Error> = Some(&fault);
            while let Some(error) = why {
                eprintln!("{error}");
                why = error.source();
            }
            panic!("it does not come");
        }
    }
    let expected = fs::read(std::env::var(EXPECTED).unwrap()).unwrap();
    assert!(got == expected, "{} bytes came, of {}", got.len(), expected.len());
}
