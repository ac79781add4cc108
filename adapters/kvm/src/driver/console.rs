//! Consoles of servers that run: QEMU offers screen and serial line at sockets of the host, and nothing else
//! does; a remote desktop is a port of the guest ([`super::reach`]).

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use adapters_libvirt::{
    Affects,
    description::{Consoles, Screen},
};
use commands::ports::{DriverFault, Pipe};
use domain::compute::server::console::ConsoleKind;
use futures::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split},
    net::{TcpStream, UnixStream},
};
use uuid::Uuid;

use super::{Inner, fault::libvirt, find, state, wanted};

/// How much is read at once, in bytes.
const PIECE_BYTES: usize = 16 << 10;

impl Inner {
    /// Opens a console of a server that runs.
    pub(super) async fn console(
        &self,
        call: Uuid,
        server: Uuid,
        kind: ConsoleKind,
        lent: Option<Ipv4Addr>,
    ) -> Result<Pipe, DriverFault> {
        let wire = self.wire.get().await?;
        let domain = find(&wire, server).await?;
        let domain = domain.ok_or_else(|| DriverFault::NotFound(wanted::name(server)))?;
        let no = |why: &str| Err(DriverFault::Rejected(why.to_owned()));
        if !state(&wire, &domain).await?.is_active() {
            return no("the server does not run");
        }
        if kind == ConsoleKind::Rdp {
            return self.desktop(call, server, lent).await;
        }
        let xml = wire.xml(&domain, Affects::Live).await.map_err(libvirt)?;
        let has = Consoles::read(&xml).map_err(|no| DriverFault::Unexpected(no.to_string()))?;
        match (kind, has.screen, has.serial) {
            (ConsoleKind::Vnc, Some(Screen::Socket(path)), _)
            | (ConsoleKind::Serial, _, Some(path)) => Ok(carry(self.dial(&path).await?, ())),
            (ConsoleKind::Vnc, Some(Screen::Port(port)), _) => {
                let stream = TcpStream::connect(("127.0.0.1", port)).await;
                let stream = stream.map_err(|error| DriverFault::Transient(error.to_string()))?;
                Ok(carry(stream, ()))
            }
            (ConsoleKind::Rdp, ..) => no("a remote desktop is no device of the server"),
            (ConsoleKind::Vnc, None, _) => no("the server has no screen"),
            (ConsoleKind::Serial, _, None) => {
                no("the server was started with no serial line that can be reached: restart it")
            }
        }
    }

    /// A socket of the host, where this process sees it.
    async fn dial(&self, path: &str) -> Result<UnixStream, DriverFault> {
        let within = path.strip_prefix('/').unwrap_or(path);
        let own: &Path = &self.options.folder;
        let path: PathBuf = if Path::new(path).starts_with(own) {
            path.into()
        } else {
            self.options.root.join(within)
        };
        let fault = |error| DriverFault::Transient(format!("{}: {error}", path.display()));
        UnixStream::connect(&path).await.map_err(fault)
    }
}

/// The other end of a pipe to what is read and written here, until either ends. As long, the other thing is
/// kept.
pub(super) fn carry(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    kept: impl Send + 'static,
) -> Pipe {
    let (ours, theirs) = Pipe::pair();
    tokio::spawn(async move {
        let _kept = kept;
        let Pipe { mut out, mut into } = ours;
        let (mut read, mut write) = split(stream);
        let there = async {
            let mut piece = vec![0; PIECE_BYTES];
            while let Ok(bytes @ 1..) = read.read(&mut piece).await {
                if out.send(piece[..bytes].to_vec()).await.is_err() {
                    break;
                }
            }
        };
        let back = async {
            while let Some(piece) = into.next().await {
                if write.write_all(&piece).await.is_err() {
                    break;
                }
            }
        };
        tokio::select! {
            () = there => {}
            () = back => {}
        }
    });
    theirs
}
