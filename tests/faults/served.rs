//! The program as a process of its own, and requests to it over plain HTTP.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;

/// Longest wait for one answer. A server that was killed closes its connections at once.
const PATIENCE: Duration = Duration::from_mins(1);

/// An answer that came whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

/// Where a server is, for whoever sends it something.
#[derive(Clone)]
pub(crate) struct Place {
    address: String,
    token: String,
}

impl Place {
    pub(crate) fn get(&self, path: &str, headers: &[(&str, &str)]) -> io::Result<Answer> {
        self.send("GET", path, headers, "")
    }

    /// Creates a project under an idempotency key.
    pub(crate) fn create(&self, key: &str) -> io::Result<Answer> {
        let body = serde_json::json!({"name": key}).to_string();
        self.send("POST", "/v1/projects", &[("idempotency-key", &format!("\"{key}\""))], &body)
    }

    /// One request on a connection of its own. What does not come whole is an error.
    fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> io::Result<Answer> {
        let broken = |what: &str| io::Error::new(io::ErrorKind::UnexpectedEof, what.to_owned());
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n",
            self.address,
            self.token,
            body.len()
        );
        for (name, value) in headers {
            request.extend([*name, ": ", *value, "\r\n"]);
        }
        request.push_str("\r\n");
        request.push_str(body);
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8(answer).map_err(|_| broken("not UTF-8"))?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| broken("no head"))?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().ok())?
        });
        if length != Some(body.len()) {
            return Err(broken("half a body"));
        }
        Ok(Answer {
            status: status.ok_or_else(|| broken("no status"))?,
            body: serde_json::from_str(body)?,
        })
    }
}

/// `skyledger serve`, killed when it is dropped.
pub(crate) struct Served {
    child: Child,
    place: Place,
    log: Arc<Mutex<String>>,
}

impl Served {
    /// Starts a server on this data folder, and comes back when it listens.
    pub(crate) fn start(data: &Path, store: &str) -> Self {
        let token_file = data.join("token");
        std::fs::create_dir_all(data).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_skyledger"))
            .args(["serve", "--until-stdin-closes", "--sync-interval", "0"])
            .args(["--listen", "127.0.0.1:0", "--log-format", "json", "--store", store, "--data"])
            .arg(data)
            .arg("--token-file")
            .arg(&token_file)
            .env_remove("SKYLEDGER_STORE_PASSWORD")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let mut address = None;
        for line in lines.by_ref().map_while(Result::ok) {
            let said: Value = serde_json::from_str(&line).unwrap_or_default();
            log.lock().unwrap().extend([&line, "\n"]);
            if said["message"] == "listening" {
                address = said["url"].as_str().unwrap().strip_prefix("http://").map(str::to_owned);
                break;
            }
        }
        let address = address.unwrap_or_else(|| panic!("it ended: {}", log.lock().unwrap()));
        // Whatever it says later is kept for a test that fails, and does not fill its pipe.
        let kept = log.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().unwrap().extend([&line, "\n"]);
            }
        });
        let token = std::fs::read_to_string(&token_file).unwrap().trim().to_owned();
        Self { child, place: Place { address, token }, log }
    }

    pub(crate) fn place(&self) -> Place {
        self.place.clone()
    }

    /// kill -9; it was alive until then.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "it ended by itself: {}", self.log.lock().unwrap());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
