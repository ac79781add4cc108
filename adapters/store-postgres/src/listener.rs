//! Hears of appends of other server processes. Only a wake-up: readers look at the log itself, and
//! look again after a second whatever was heard.

use std::{future::poll_fn, time::Duration};

use domain::log::Position;
use tokio::sync::watch;
use tokio_postgres::{AsyncMessage, Config};

use crate::connection;

/// Between two tries to connect.
const BACK_OFF: Duration = Duration::from_secs(1);

/// Remembers the newest position that was told of.
pub(crate) fn tell(newest: &watch::Sender<Position>, position: Position) {
    newest.send_if_modified(|known| {
        let newer = position > *known;
        *known = position.max(*known);
        newer
    });
}

/// Listens until it is aborted.
pub(crate) async fn listen(config: Config, channel: String, newest: watch::Sender<Position>) {
    loop {
        if let Err(fault) = listen_once(&config, &channel, &newest).await {
            tracing::debug!(%fault, "not listening to PostgreSQL; readers look for themselves");
        }
        tokio::time::sleep(BACK_OFF).await;
    }
}

async fn listen_once(
    config: &Config,
    channel: &str,
    newest: &watch::Sender<Position>,
) -> Result<(), commands::ports::LogFault> {
    let (client, mut connection) = connection::open(config).await?;
    let sql = format!("LISTEN {channel}");
    let listen = client.batch_execute(&sql);
    let hear = async {
        while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(told) = message.map_err(connection::fault)?
                && let Ok(position) = told.payload().parse()
            {
                tell(newest, position);
            }
        }
        Ok(())
    };
    // The connection must be driven for the statement to be sent.
    let (listening, heard) = futures::join!(listen, hear);
    listening.map_err(connection::fault)?;
    heard
}
