//! Connections, and PostgreSQL's errors in the log's words.

use std::{str::FromStr, time::Duration};

use commands::ports::LogFault;
use tokio_postgres::{
    Client, Config, Connection, Error, NoTls, Socket,
    error::{Severity, SqlState},
    tls::NoTlsStream,
};

/// A connection that waits longer for a lock gives up: the head's lock is held for milliseconds.
const LOCK_TIMEOUT_MS: u32 = 5_000;
/// A transaction whose client says nothing for so long is ended by the server: bounds how long a
/// server process that hangs can hold the head's lock.
const IDLE_IN_TRANSACTION_MS: u32 = 5_000;

/// What a failed statement means for a caller.
pub fn fault(error: Error) -> LogFault {
    let reason = chain(&error);
    match error.code() {
        Some(code) if *code == SqlState::DISK_FULL => LogFault::Full(reason),
        Some(code) if is_passing(code) => LogFault::Unavailable(reason),
        Some(code) if *code == SqlState::DATA_CORRUPTED || *code == SqlState::INDEX_CORRUPTED => {
            LogFault::Corrupt { position: 0, reason }
        }
        Some(_) => LogFault::Unexpected(reason),
        // No answer from the server: closed, refused, timed out.
        None => LogFault::Unavailable(reason),
    }
}

/// What a failed loan from the pool means.
pub fn pool_fault(error: deadpool_postgres::PoolError) -> LogFault {
    match error {
        deadpool_postgres::PoolError::Backend(error) => fault(error),
        other => LogFault::Unavailable(other.to_string()),
    }
}

/// The error and its causes: `Display` of the outermost alone only says `db error`.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Whether trying again later may help: classes 08 (connection), 53 (resources), 57 (operator:
/// shutdown, starting up), and locks, deadlocks and serialisation.
fn is_passing(code: &SqlState) -> bool {
    matches!(&code.code()[..2], "08" | "53" | "57" | "40")
        || *code == SqlState::LOCK_NOT_AVAILABLE
        || *code == SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT
}

/// Whether the server said no to a statement and goes on, so that the transaction was surely
/// undone. A connection that ends (`FATAL`, or without a word) may end after its commit.
pub(crate) fn is_refused(error: &Error) -> bool {
    error.as_db_error().is_some_and(|error| error.parsed_severity() == Some(Severity::Error))
}

/// Reads the URL and adds what every connection of ours has.
pub(crate) fn config(url: &str, schema: &str) -> Result<Config, LogFault> {
    let mut config = Config::from_str(url)
        .map_err(|error| LogFault::Unexpected(format!("the database's URL: {}", chain(&error))))?;
    let ours = format!(
        "-c search_path={schema} -c lock_timeout={LOCK_TIMEOUT_MS} \
         -c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_MS} \
         -c client_min_messages=warning"
    );
    // The caller's own come last and win.
    let options = match config.get_options() {
        Some(theirs) => format!("{ours} {theirs}"),
        None => ours,
    };
    config.options(options);
    if config.get_application_name().is_none() {
        config.application_name("skyledger");
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(Duration::from_secs(5));
    }
    config.keepalives_idle(Duration::from_secs(10));
    config.tcp_user_timeout(Duration::from_secs(15));
    Ok(config)
}

/// A connection of its own; its other half runs on a task until it is closed.
pub(crate) async fn connect(config: &Config) -> Result<Client, LogFault> {
    let (client, connection) = open(config).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::warn!(error = chain(&error), "a connection to PostgreSQL ended");
        }
    });
    // An acknowledged append is durable, whatever the database's default.
    client
        .batch_execute(
            "SELECT set_config('synchronous_commit', 'on', false) \
             WHERE current_setting('synchronous_commit') = 'off'",
        )
        .await
        .map_err(fault)?;
    Ok(client)
}

/// Both halves, for whoever reads notifications.
pub(crate) async fn open(
    config: &Config,
) -> Result<(Client, Connection<Socket, NoTlsStream>), LogFault> {
    config.connect(NoTls).await.map_err(fault)
}
