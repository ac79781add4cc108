//! A disk on a host of ours that is written over NBD.

use std::{io, net::SocketAddr, time::Duration};

use adapters_nbd::{Export, Wire, in_time};
use tokio::net::TcpStream;

/// How long it may take to be let in. Nobody else is: the kernel there drops what comes from elsewhere.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// A connection to a disk.
#[derive(Debug)]
pub(super) struct Disk {
    wire: Wire<TcpStream>,
    pub(super) export: Export,
}

impl Disk {
    /// Connects to the disk of this name.
    pub(super) async fn connect(at: SocketAddr, name: &str) -> io::Result<Self> {
        let connected = async {
            let stream = TcpStream::connect(at).await?;
            stream.set_nodelay(true)?;
            let mut wire = Wire::begin(stream).await?;
            let export = wire.go(name).await?;
            Ok(Self { wire, export })
        };
        in_time(CONNECT_PATIENCE, connected).await
    }

    /// These bytes are there.
    pub(super) async fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        if self.export.has_zeroes && bytes.iter().all(|byte| *byte == 0) {
            return self.wire.zeroes(at, bytes.len() as u32).await;
        }
        self.wire.write(at, bytes).await
    }

    /// All of it is on the disk, also when the host goes down.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        self.wire.flush().await
    }

    /// Says goodbye.
    pub(super) async fn close(mut self) -> io::Result<()> {
        self.wire.leave().await
    }
}
