//! A stand-in for a vCenter, a process of its own: govmomi's simulator behind a front of ours
//! (`tests/servers/vcsim/main.go` says which does what). `./test` builds it.

use std::{io, process::Stdio};

use commands::ports::DriverFault;
use http::Request;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use super::cloudpods::Broken;
use crate::http_client::HttpClient;

/// The password that the stand-in takes.
pub const PASSWORD: &str = "a-password-of-vcenter";
/// Where its program is, or why there is none.
const VARIABLE: &str = "SKYLEDGER_TEST_VCSIM";

/// A running stand-in; it ends when it is dropped.
#[derive(Debug)]
pub struct VCenter {
    url: String,
    fingerprint: Option<String>,
    http: HttpClient,
    // Its input ends with it, and then the process does.
    _process: Child,
}

impl VCenter {
    /// Starts one without machines; none where it was left out, which is said.
    ///
    /// # Errors
    /// When nobody said where its program is, or it does not start.
    pub async fn start() -> io::Result<Option<Self>> {
        Self::start_with(&[]).await
    }

    /// The same, with a certificate that nobody vouches for.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_secure() -> io::Result<Option<Self>> {
        Self::start_with(&["-tls"]).await
    }

    async fn start_with(words: &[&str]) -> io::Result<Option<Self>> {
        let program = std::env::var(VARIABLE).map_err(|_| {
            let why = "SKYLEDGER_TEST_VCSIM is the program of the stand-in for vCenter; run ./test, \
                       which builds it, or tests/servers/vcsim.sh build CACHE_DIR";
            io::Error::other(why)
        })?;
        if let Some(why) = program.strip_prefix("left out: ") {
            // Where the harness does not keep it from being seen.
            let said = std::io::Write::write_fmt(
                &mut io::stderr(),
                format_args!("LEFT OUT, there is no stand-in for vCenter here: {why}\n"),
            );
            drop(said);
            return Ok(None);
        }
        let mut process = Command::new(program)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let said = process.stdout.take().ok_or_else(|| io::Error::other("it has no output"))?;
        let mut lines = BufReader::new(said).lines();
        let url = lines.next_line().await?;
        let url = url.ok_or_else(|| io::Error::other("it ended before it listened"))?;
        let fingerprint = if url.starts_with("https") { lines.next_line().await? } else { None };
        Ok(Some(Self { url, fingerprint, http: HttpClient::new(), _process: process }))
    }

    /// Where it answers.
    pub fn endpoint(&self) -> &str {
        &self.url
    }

    /// That of its certificate; none when it has none.
    pub fn fingerprint(&self) -> Option<&str> {
        self.fingerprint.as_deref()
    }

    /// The account's credential.
    pub fn credential() -> Value {
        json!({"user": "mover", "password": PASSWORD})
    }

    async fn lab(&self, path: &str, body: Vec<u8>) -> Result<Vec<u8>, DriverFault> {
        let request = Request::post(format!("{}/lab/{path}", self.url)).body(body);
        let request = request.map_err(|error| DriverFault::Unexpected(error.to_string()))?;
        let answer = self.http.send(request).await?;
        if answer.status == 200 {
            return Ok(answer.body);
        }
        Err(DriverFault::Rejected(String::from_utf8_lossy(&answer.body).into_owned()))
    }

    async fn said(&self, path: &str, body: Value) -> Result<Value, DriverFault> {
        let said = self.lab(path, body.to_string().into_bytes()).await?;
        serde_json::from_slice(&said).map_err(|error| DriverFault::Unexpected(error.to_string()))
    }

    /// A machine that runs: `Name`, `Mib` of each disk, and what else the front takes. Its id.
    ///
    /// # Errors
    /// What the stand-in says.
    pub async fn machine(&self, ask: Value) -> Result<String, DriverFault> {
        let made = self.said("machines", ask).await?;
        Ok(made["id"].as_str().unwrap_or_default().to_owned())
    }

    /// Its system writes a disk.
    ///
    /// # Errors
    /// It is off.
    pub async fn write(
        &self,
        id: &str,
        disk: u32,
        at: u64,
        bytes: Vec<u8>,
    ) -> Result<(), DriverFault> {
        let path = format!("write?machine={id}&disk={disk}&at={at}");
        self.lab(&path, bytes).await.map(drop)
    }

    /// A disk as its system sees it.
    ///
    /// # Errors
    /// There is none.
    pub async fn read(&self, id: &str, disk: u32) -> Result<Vec<u8>, DriverFault> {
        self.lab(&format!("read?machine={id}&disk={disk}"), Vec::new()).await
    }

    /// Whether it `runs`, how many `snapshots` it has, its `mark` and whether it is `tracking`.
    ///
    /// # Errors
    /// There is none.
    pub async fn of(&self, id: &str) -> Result<Value, DriverFault> {
        self.said(&format!("machine?machine={id}"), Value::Null).await
    }

    /// The next call of this name is broken; `folder` is a stretch of a file.
    ///
    /// # Errors
    /// What the stand-in says.
    pub async fn break_next(&self, call: &str, how: Broken) -> Result<(), DriverFault> {
        let how = if how == Broken::Before { "before" } else { "after" };
        self.said("break", json!({"Call": call, "How": how})).await.map(drop)
    }

    /// How many calls are still to be broken.
    ///
    /// # Errors
    /// What the stand-in says.
    pub async fn unbroken(&self) -> Result<u64, DriverFault> {
        Ok(self.said("broken", Value::Null).await?.as_u64().unwrap_or_default())
    }

    /// Every call so far.
    ///
    /// # Errors
    /// What the stand-in says.
    pub async fn calls(&self) -> Result<Vec<String>, DriverFault> {
        let calls = self.said("calls", Value::Null).await?;
        Ok(serde_json::from_value(calls).unwrap_or_default())
    }

    /// From now on no system hears that it is to stop.
    ///
    /// # Errors
    /// What the stand-in says.
    pub async fn deafen(&self) -> Result<(), DriverFault> {
        self.said("deaf", Value::Null).await.map(drop)
    }
}
