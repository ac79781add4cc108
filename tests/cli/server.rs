//! Servers of this program, each with a store, a folder and a simulated cloud of its own.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    time::{Duration, Instant},
};

use adapters_sim::{Population, SimCloud};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{Ran, program};

/// Longest wait for a line of a process: what is waited for takes a fraction of a second.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a process writes, line by line, as it comes; a copy goes to a file.
pub(crate) struct Lines(Receiver<String>);

impl Lines {
    pub(crate) fn of(
        source: impl Read + Send + 'static,
        mut copy: impl Write + Send + 'static,
    ) -> Self {
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(source).lines().map_while(Result::ok) {
                // Whoever does not listen any more still lets the process write.
                let _ = (writeln!(copy, "{line}"), sender.send(line));
            }
        });
        Self(receiver)
    }

    /// The next line with this in it; none when the process ends without one.
    pub(crate) fn next_with(&self, part: &str) -> Option<String> {
        loop {
            match self.0.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(part) => return Some(line),
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => panic!("no line with `{part}` in {PATIENCE:?}"),
            }
        }
    }
}

impl Lines {
    /// Whether a line with this in it comes soon.
    pub(crate) fn within_a_second(&self, part: &str) -> bool {
        let until = Instant::now() + Duration::from_secs(1);
        let left = || until.saturating_duration_since(Instant::now());
        std::iter::from_fn(|| self.0.recv_timeout(left()).ok()).any(|line| line.contains(part))
    }
}

/// A database of its own on the PostgreSQL of `./test`, dropped when the test ends.
pub(crate) struct Database {
    name: String,
    url: String,
}

impl Database {
    fn new() -> Self {
        let name = format!("cli_{}", uuid::Uuid::now_v7().simple());
        let server = std::env::var("SKYLEDGER_TEST_POSTGRES")
            .expect("SKYLEDGER_TEST_POSTGRES is not set: run the tests with ./test");
        execute(&server, &format!("CREATE DATABASE {name}"));
        let (place, _) = server.rsplit_once('/').unwrap();
        Self { url: format!("{place}/{name}"), name }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Ok(server) = std::env::var("SKYLEDGER_TEST_POSTGRES") {
            execute(&server, &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
        }
    }
}

fn execute(url: &str, sql: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection) =
            tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        client.batch_execute(sql).await.unwrap();
        drop(client);
        connection.await.unwrap().unwrap();
    });
}

/// The stand-in for AWS, for one test at a time: one of them empties it.
pub(crate) fn aws() -> (String, MutexGuard<'static, ()>) {
    static ALONE: Mutex<()> = Mutex::new(());
    let endpoint = std::env::var("SKYLEDGER_TEST_AWS")
        .expect("SKYLEDGER_TEST_AWS is not set: run the tests with ./test");
    (endpoint, ALONE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Which store.
pub(crate) enum Store {
    Embedded,
    Postgres(Database),
}

impl Store {
    pub(crate) fn postgres() -> Self {
        Self::Postgres(Database::new())
    }

    /// As `--store` takes it.
    pub(crate) fn word(&self) -> &str {
        match self {
            Self::Embedded => "sqlite",
            Self::Postgres(database) => &database.url,
        }
    }

    pub(crate) fn is_embedded(&self) -> bool {
        matches!(self, Self::Embedded)
    }
}

/// The machine's clock, for the cloud as tests see it.
struct RealClock;

#[async_trait]
impl commands::ports::Clock for RealClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// The account of [`cloud`], and its secret.
pub(crate) const ACCOUNT: &str = "acme";
const SECRET: &str = "a-simulated-secret";

/// The simulated cloud of a server that is started in this folder, with an account in one region.
pub(crate) fn cloud(folder: &Path) -> (SimCloud, Population) {
    let cloud = SimCloud::open(&cloud_file(folder), std::sync::Arc::new(RealClock)).unwrap();
    let population = Population { seed: 3, regions: 1, resources: 30 };
    cloud.populate(ACCOUNT, SECRET, population).unwrap();
    (cloud, population)
}

fn cloud_file(folder: &Path) -> PathBuf {
    folder.join("cloud.json")
}

/// Sends a request and reads until the other end closes.
pub(crate) fn exchange(address: &str, request: &str) -> String {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A server, killed when the test ends.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    pub(crate) token: String,
}

impl Server {
    /// Its data is in the folder `data` of this one.
    pub(crate) fn start(folder: &Path, store: &Store) -> Self {
        Self::start_with(folder, store, &[])
    }

    pub(crate) fn start_with(folder: &Path, store: &Store, more: &[&str]) -> Self {
        let token_file = folder.join("token");
        let file = token_file.to_str().unwrap();
        let mut server = Self::listening(folder, store, &[&["--token-file", file], more].concat());
        let token = std::fs::read_to_string(&token_file).unwrap_or_default();
        token.trim().clone_into(&mut server.token);
        server.wait_for_views();
        server
    }

    /// One that takes connections; what it says is in the file `log`. The token is for the caller
    /// to fill in.
    pub(crate) fn listening(folder: &Path, store: &Store, more: &[&str]) -> Self {
        let mut child = program()
            .args(["serve", "--until-stdin-closes", "--sync-interval", "0", "--data"])
            .arg(folder.join("data"))
            .args(["--store", store.word(), "--listen", "127.0.0.1:0"])
            .arg("--sim")
            .arg(cloud_file(folder))
            .args(["--log-format", "json"])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = folder.join("log");
        let lines = Lines::of(child.stderr.take().unwrap(), std::fs::File::create(&log).unwrap());
        // It says so when the store is open, the first token is written and connections are taken.
        let Some(line) = lines.next_with("\"listening\"") else {
            let _ = child.kill();
            panic!("{}", std::fs::read_to_string(log).unwrap_or_default());
        };
        let line: Value = serde_json::from_str(&line).unwrap();
        let url = line["url"].as_str().unwrap().to_owned();
        Self { child, url, token: String::new() }
    }

    /// A log that was there before is folded after the server listens.
    fn wait_for_views(&self) {
        let Some(address) = self.url.strip_prefix("http://") else { return };
        let head = self.json(&["audit", "head"]);
        let answer = exchange(
            address,
            &format!(
                "GET /v1/projects HTTP/1.0\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\
                 skyledger-min-position: {}\r\n\r\n",
                self.token, head["size"]
            ),
        );
        assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    }

    /// The program, with this server and its token in its environment.
    pub(crate) fn client(&self, words: &[&str]) -> Command {
        let mut command = program();
        command.env("SKYLEDGER_SERVER", &self.url).env("SKYLEDGER_TOKEN", &self.token);
        command.args(words);
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Ran {
        self.client(words).output().unwrap().into()
    }

    /// The same, with something in its environment.
    pub(crate) fn run_with(&self, words: &[&str], environment: &[(&str, &str)]) -> Ran {
        self.client(words).envs(environment.iter().copied()).output().unwrap().into()
    }

    /// What a command answers in JSON.
    #[track_caller]
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        let ran = self.run(&[words, &["-o", "json"]].concat());
        assert_eq!(ran.code, 0, "{words:?}: {}{}", ran.out, ran.err);
        serde_json::from_str(&ran.out).unwrap()
    }

    /// Connects the account of [`cloud`] and looks at it once.
    #[track_caller]
    pub(crate) fn connect(&self) {
        for words in [
            &[
                "create",
                "account",
                "--set",
                "name=acme",
                "--set",
                "provider=sim",
                "--wait",
                "--set",
                "credential.account=acme",
                "--set",
                "credential.secret=a-simulated-secret",
            ][..],
            &["sync", "acme", "--wait"],
        ] {
            let ran = self.run(words);
            assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
        }
    }

    /// Ends its standard input, which asks it to stop.
    pub(crate) fn stop(mut self) -> i32 {
        drop(self.child.stdin.take());
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
