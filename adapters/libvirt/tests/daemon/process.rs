//! A libvirt daemon of a test's own, with the driver `test` that is built into it.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// A daemon of its own, with the one host and the one domain that the driver `test` has.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    folder: TempDir,
}

impl Daemon {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        for name in ["drivers", "sockets"] {
            fs::create_dir(path(name)).unwrap();
        }
        let config = format!(
            "unix_sock_dir = \"{}\"\nauth_unix_ro = \"none\"\nauth_unix_rw = \"none\"\n\
             unix_sock_ro_perms = \"0700\"\nunix_sock_rw_perms = \"0700\"\n\
             log_outputs = \"3:file:{}\"\n",
            path("sockets"),
            path("log")
        );
        fs::write(path("config"), config).unwrap();
        let child = Command::new("libvirtd")
            .args(["--config", &path("config"), "--pid-file", &path("pid")])
            // Without the hypervisors' drivers, which look around on the machine.
            .env("LIBVIRT_DRIVER_DIR", path("drivers"))
            .env("XDG_RUNTIME_DIR", path(""))
            .env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("libvirtd is missing: run the tests with ./test, which installs it");
        let daemon = Self { child, folder };
        let started = Instant::now();
        while std::os::unix::net::UnixStream::connect(daemon.socket()).is_err() {
            assert!(started.elapsed() < Duration::from_mins(1), "{}", daemon.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        daemon
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("sockets/libvirt-sock")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
