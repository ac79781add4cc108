//! Which process projects, and hearing of what it did.

use std::{future::poll_fn, sync::Arc, time::Duration};

use domain::kernel::sha256;
use tokio::{
    sync::{Mutex, Notify},
    task::AbortHandle,
};
use tokio_postgres::{AsyncMessage, Client, Config};

use crate::connection::{connect, fault, open};

/// Between two tries to lead: bounds how long nobody projects after a process ended.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// A lost notification delays by so much.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// One process's part.
pub(super) struct Leader {
    config: Config,
    lock: i64,
    /// The session that holds the lock, while this process leads.
    session: Mutex<Option<Client>>,
    told: Arc<Notify>,
    listener: AbortHandle,
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Leader {
    /// Begins to listen. `channel` is the schema's.
    pub(super) fn new(config: Config, channel: String) -> Self {
        let hash = sha256(channel.as_bytes());
        let lock = i64::from_be_bytes(*hash.first_chunk().unwrap_or(&[0; 8]));
        let told = Arc::new(Notify::new());
        let listener = tokio::spawn(listen(config.clone(), channel, Arc::clone(&told)));
        Self { config, lock, session: Mutex::default(), told, listener: listener.abort_handle() }
    }

    /// Comes back when this process leads.
    pub(super) async fn lead(&self) {
        let mut session = self.session.lock().await;
        if session.as_ref().is_some_and(|client| !client.is_closed()) {
            return;
        }
        *session = None;
        let mut trying: Option<Client> = None;
        loop {
            match self.try_lock(&mut trying).await {
                Ok(true) => {
                    *session = trying;
                    return;
                }
                Ok(false) => {}
                Err(fault) => {
                    trying = None;
                    tracing::warn!(%fault, "nobody can lead while PostgreSQL is away");
                }
            }
            tokio::time::sleep(TRY_AGAIN).await;
        }
    }

    async fn try_lock(
        &self,
        trying: &mut Option<Client>,
    ) -> Result<bool, commands::ports::LogFault> {
        let client = match trying {
            Some(client) if !client.is_closed() => client,
            other => other.insert(connect(&self.config).await?),
        };
        let row = client
            .query_one("SELECT pg_try_advisory_lock($1)", &[&self.lock])
            .await
            .map_err(fault)?;
        Ok(row.get(0))
    }

    /// Comes back when the process that leads may have moved a view on.
    pub(super) async fn changed(&self) {
        let _ = tokio::time::timeout(LOOK_AGAIN, self.told.notified()).await;
    }
}

async fn listen(config: Config, channel: String, told: Arc<Notify>) {
    loop {
        if let Err(fault) = listen_once(&config, &channel, &told).await {
            tracing::debug!(%fault, "not hearing of views; readers look for themselves");
        }
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

async fn listen_once(
    config: &Config,
    channel: &str,
    told: &Notify,
) -> Result<(), commands::ports::LogFault> {
    let (client, mut connection) = open(config).await?;
    let sql = format!("LISTEN {channel}");
    let listen = async {
        let listening = client.batch_execute(&sql).await.map_err(fault);
        // What was told before this is not heard.
        told.notify_one();
        listening
    };
    let hear = async {
        while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(_) = message.map_err(fault)? {
                told.notify_one();
            }
        }
        Ok(())
    };
    let (listening, heard) = futures::join!(listen, hear);
    listening.and(heard)
}
