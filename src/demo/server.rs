//! The demo's server: this program again, as a child that can be killed.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use adapters_console::{
    client::Client,
    story::{Running, Told, Untrue},
};
use tokio::process::{Child, Command};

/// Where `skyledger serve` listens, when that is free.
const PORT: u16 = 7878;
/// Longest wait for a server to be ready or gone. Both take a fraction of a second.
const PATIENCE: Duration = Duration::from_secs(30);

/// A port that nobody listens on; any for 0.
fn free(port: u16) -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|free| free.local_addr())
}

pub(super) struct Server {
    data: PathBuf,
    sim: Option<PathBuf>,
    address: SocketAddr,
    child: Option<Child>,
}

impl Server {
    pub(super) fn new(data: PathBuf, sim: Option<PathBuf>) -> Told<Self> {
        let address = free(PORT).or_else(|_| free(0))?;
        Ok(Self { data, sim, address, child: None })
    }

    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    fn token_file(&self) -> PathBuf {
        self.data.join("admin.token")
    }

    fn log_file(&self) -> PathBuf {
        self.data.join("server.log")
    }

    pub(super) async fn start(&mut self) -> Told<Running> {
        // Somebody else may have taken the port since it was free, another demo for instance.
        match self.start_at(self.address).await? {
            Ok(running) => Ok(running),
            Err(_) => {
                self.address = free(0)?;
                let started = self.start_at(self.address).await?;
                started.map_err(|status| Untrue(format!("the server ended: {status}")))
            }
        }
    }

    /// Starts it and waits until it answers; or it has ended, as it does when it cannot listen.
    async fn start_at(&mut self, address: SocketAddr) -> Told<Result<Running, ExitStatus>> {
        let log = std::fs::File::options().create(true).append(true).open(self.log_file())?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["serve", "--until-stdin-closes", "--sync-interval", "0", "--data"])
            .arg(&self.data)
            .args(["--listen", &address.to_string(), "--token-file"])
            .arg(self.token_file());
        if let Some(sim) = &self.sim {
            command.arg("--sim").arg(sim);
        }
        command.env_remove("SKYLEDGER_STORE_PASSWORD");
        // Its standard input ends with this process, and it with that: no server is left behind.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        let mut child = command.spawn()?;
        let pid = child.id().unwrap_or_default();
        let url = format!("http://{address}");
        let until = Instant::now() + PATIENCE;
        let token = loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Err(status));
            }
            // Only our own server knows the token: another one may answer at this address.
            let token = std::fs::read_to_string(self.token_file()).unwrap_or_default();
            let probe = Client::new(&url, Some(token.trim()))?;
            if probe.text("/readyz").await.is_ok() && probe.get("/v1/audit/head", &[]).await.is_ok()
            {
                break token.trim().to_owned();
            }
            if Instant::now() > until {
                return Err(Untrue("the server is not ready after 30 s".to_owned()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        self.child = Some(child);
        Ok(Ok(Running { url, token, pid }))
    }

    pub(super) async fn kill(&mut self) -> Told {
        let mut child = self.child.take().ok_or_else(no_server)?;
        // On Unix this is SIGKILL.
        child.start_kill()?;
        let status = child.wait().await?;
        if status.code().is_some() {
            return Err(Untrue(format!("the server was not killed: {status}")));
        }
        Ok(())
    }

    pub(super) async fn stop(&mut self) -> Told {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        if let Some(pid) = child.id() {
            // The shell's own `kill`: the program of that name is not on every machine.
            let script = format!("kill -TERM {pid}");
            let _ = Command::new("sh").args(["-c", &script]).status().await?;
        }
        let status = tokio::time::timeout(PATIENCE, child.wait())
            .await
            .map_err(|_| Untrue("the server does not stop".to_owned()))??;
        if status.success() {
            Ok(())
        } else {
            Err(Untrue(format!("the server did not stop cleanly: {status}{}", self.log())))
        }
    }

    /// Comes back when the server ends by itself.
    pub(super) async fn ended(&mut self) -> Told {
        match &mut self.child {
            Some(child) => {
                // `wait` would close the child's standard input, which tells it that we are gone.
                let _kept_open = child.stdin.take();
                child.wait().await?;
                Ok(())
            }
            None => Err(no_server()),
        }
    }

    /// The end of the server's log, for whoever wants to know why.
    pub(super) fn log(&self) -> String {
        const LINES: usize = 15;
        let text = std::fs::read_to_string(self.log_file()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        if lines.is_empty() {
            return String::new();
        }
        let end = &lines[lines.len().saturating_sub(LINES)..];
        format!("\n\nThe end of the server's log:\n{}", end.join("\n"))
    }
}

fn no_server() -> Untrue {
    Untrue("there is no server".to_owned())
}

/// Runs this program: its exit code, and what it wrote on standard output (or else on error).
pub(super) async fn tool(words: &[&str]) -> Told<(i32, String)> {
    let run = Command::new(std::env::current_exe()?).args(words).stdin(Stdio::null()).output();
    let output = match run.await {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Untrue("the program is gone from its place".to_owned()));
        }
        output => output?,
    };
    let told = if output.stdout.is_empty() { &output.stderr } else { &output.stdout };
    let code = output.status.code().unwrap_or(-1);
    Ok((code, String::from_utf8_lossy(told).into_owned()))
}
