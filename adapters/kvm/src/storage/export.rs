//! A disk that no server uses, offered by `qemu-nbd` on a socket of this host: read without a copy, or
//! filled by whoever connects.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    fs,
    process::{Child, Command},
    time::Instant,
};

use super::{StorageFault, files, qemu_img::Format};
use crate::tool::{ToolFault, said};

/// How long it may take to offer a disk.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether it does.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// A socket that is connected to is in this state: `__SO_ACCEPTCON` of Linux.
const ACCEPTS: u32 = 1 << 16;

/// Whether somebody listens at a socket, as the kernel says it. Who connects to ask is a client, and with its going
/// the offer ends.
async fn listens(socket: &Path) -> Result<bool, StorageFault> {
    let path = Path::new("/proc/net/unix");
    let said = fs::read_to_string(path).await.map_err(StorageFault::file("cannot read", path))?;
    Ok(said.lines().any(|line| is_accepting(line, socket)))
}

/// Reads a line of `/proc/net/unix` (proc(5)): number, references, protocol, flags, type, state, inode, path.
fn is_accepting(line: &str, socket: &Path) -> bool {
    let before = socket.to_str().and_then(|socket| line.strip_suffix(socket)).unwrap_or_default();
    let words: Vec<_> = before.split_ascii_whitespace().collect();
    let [_, _, _, flags, _, _, _] = words[..] else { return false };
    before.ends_with(' ') && u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & ACCEPTS != 0)
}

/// Whether a disk is read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nobody can change it, and no server can start with it meanwhile.
    Read,
    /// What is written is there.
    Write,
}

/// An offer. It ends when it is dropped.
#[derive(Debug)]
pub struct Export {
    child: Child,
    socket: PathBuf,
}

impl Export {
    /// Offers a disk at a socket, whatever has its name.
    ///
    /// # Errors
    /// A server uses the disk, it is not there, or the tool is not.
    pub async fn open(
        disk: &Path,
        format: Format,
        access: Access,
        socket: &Path,
    ) -> Result<Self, StorageFault> {
        files::remove(socket).await?;
        let mut command = Command::new("qemu-nbd");
        command.args(["--format", format.name(), "--socket"]).arg(socket);
        match access {
            Access::Read => command.arg("--read-only"),
            // Blocks of zeroes become holes.
            Access::Write => command.args(["--discard=unmap", "--detect-zeroes=unmap"]),
        };
        command.arg(disk).env("LC_ALL", "C").kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let start = |source| ToolFault::Start { tool: "qemu-nbd".to_owned(), source };
        let mut child = command.spawn().map_err(start)?;
        let ends = Instant::now() + PATIENCE;
        // It tells nobody, and its socket has its name a moment before anybody may connect.
        while !listens(socket).await? {
            if let Some(status) = child.try_wait().map_err(start)? {
                let (tool, said) = (format!("qemu-nbd {}", disk.display()), said(&mut child).await);
                return Err(ToolFault::Failed { tool, code: status.code(), said }.into());
            }
            if Instant::now() > ends {
                let tool = format!("qemu-nbd {}", disk.display());
                return Err(ToolFault::Late { tool, limit: PATIENCE }.into());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(Self { child, socket: socket.to_owned() })
    }

    /// Where it is offered.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Waits until whoever had connected is gone and all is written, as it is when the one connection
    /// has ended.
    ///
    /// # Errors
    /// It does not end, or ended badly.
    pub async fn close(mut self) -> Result<(), StorageFault> {
        let tool = || "qemu-nbd".to_owned();
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let ended = ended.map_err(|_| ToolFault::Late { tool: tool(), limit: PATIENCE })?;
        let status = ended.map_err(|source| ToolFault::Start { tool: tool(), source })?;
        if !status.success() {
            let said = said(&mut self.child).await;
            return Err(ToolFault::Failed { tool: tool(), code: status.code(), said }.into());
        }
        files::remove(&self.socket).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_listened_at_once_somebody_may_connect() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("one.nbd");
        assert!(!listens(&socket).await.unwrap());
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        assert!(listens(&socket).await.unwrap());
        drop(listener);
        assert!(socket.exists() && !listens(&socket).await.unwrap());
        let line = |flags: &str, path: &str| {
            let line = format!("0000000000000000: 00000002 00000000 {flags} 0001 01     9 {path}");
            is_accepting(&line, Path::new("/run/of us/one.nbd"))
        };
        assert!(line("00010000", "/run/of us/one.nbd"));
        assert!(!line("00000000", "/run/of us/one.nbd"), "it has its name alone");
        assert!(!line("00010000", "/more/run/of us/one.nbd"));
    }
}
