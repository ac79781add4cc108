//! The connection to the host's libvirt daemon, opened again when it was lost.

use std::sync::Arc;

use adapters_libvirt::{Connection, Options};
use commands::ports::DriverFault;
use tokio::sync::{Mutex, watch};

use super::fault::libvirt;

/// Keeps the connection.
#[derive(Debug)]
pub(super) struct Wire {
    options: Options,
    now: Mutex<Option<Arc<Connection>>>,
    /// Goes up when something may have changed.
    changes: watch::Sender<u64>,
}

impl Wire {
    pub(super) fn new(options: Options) -> Self {
        Self { options, now: Mutex::new(None), changes: watch::Sender::new(0) }
    }

    /// The connection that is open, or a new one.
    pub(super) async fn get(&self) -> Result<Arc<Connection>, DriverFault> {
        let mut now = self.now.lock().await;
        if let Some(connection) = now.as_ref().filter(|connection| !connection.is_over()) {
            return Ok(Arc::clone(connection));
        }
        let connection = Connection::open(&self.options).await.map_err(libvirt)?;
        let mut events = connection.events().await.map_err(libvirt)?;
        let changes = self.changes.clone();
        tokio::spawn(async move {
            while events.next().await.is_some() {
                changes.send_modify(|count| *count += 1);
            }
            // What happens from now on is not told: whoever listens looks, which opens it again.
            changes.send_modify(|count| *count += 1);
        });
        let connection = Arc::new(connection);
        *now = Some(Arc::clone(&connection));
        // Nobody knows what happened before.
        self.changes.send_modify(|count| *count += 1);
        Ok(connection)
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
