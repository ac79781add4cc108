//! The composition root: one server from one configuration, read from top to bottom.
//!
//! Stopping goes the other way round: no new requests, no new orders, the last tree head into the
//! witness, the views, the store. A crash at any point needs none of it.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use adapters_http as http;
use adapters_keys::{Keys, Witness, WitnessFault, verify_signature};
use adapters_lake::{AnswerFolder, Lake, Options};
use adapters_sim::SimCloud;
use anyhow::{Context, Result, bail};
use commands::{
    ledger::{Ledger, Ports},
    ports::{AuditFilter, BillStore, Provider, ViewFault, Views},
    run_orders::Runner,
    submit::{Submission, SubmitFault},
};
use domain::{kernel::Principal, kinds, log::Sign};
use serde_json::json;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::{
    config::Config,
    cost_watch,
    edge::{SystemClock, SystemIds},
    local_host::{self, OwnHost},
    schedule,
    store::{self, OpenViews, Store},
    telemetry,
};

/// How long the views may take to see what a start-up asks them.
const PATIENCE: Duration = Duration::from_mins(1);
/// Between two looks at views that catch up.
const LOOK: Duration = Duration::from_millis(200);
/// How long views that catch up may show nothing: a table of millions of rows has been read to its
/// end when its indexes are made.
const STILL: Duration = Duration::from_mins(10);

/// What only the command line says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manner {
    /// The host that the server works for itself.
    pub(crate) own_host: Option<OwnHost>,
    /// Where the first token is written in place of standard error.
    pub(crate) token_file: Option<PathBuf>,
    /// Stop when standard input ends: the parent is gone.
    pub(crate) until_stdin_closes: bool,
}

/// The parts that server and upkeep share.
pub(crate) struct Opened {
    pub(crate) signer: Arc<dyn Sign>,
    pub(crate) store: Store,
    pub(crate) views: OpenViews,
    pub(crate) ledger: Arc<Ledger>,
}

/// Opens keys, store and views, and puts a ledger on them.
pub(crate) async fn open(config: &Config) -> Result<Opened> {
    let Keys { vault, signer } =
        Keys::open_or_create(&config.data.join("keys")).context("the keys")?;
    let store = store::open(config).await?;
    let views = store.start_views(config).await.context("the views")?;
    let clock = Arc::new(SystemClock);
    let segments = config.data.join("segments");
    let options = Options { cache_bytes: config.cost_cache_mib << 20, ..Options::default() };
    let lake = Lake::open_with(&segments, options)
        .with_context(|| format!("the bills' lines in {}", segments.display()))?;
    let bills: Arc<dyn BillStore> = Arc::new(lake);
    #[cfg(feature = "clickhouse")]
    let bills = with_clickhouse(config, bills).await?;
    let reports = config.data.join("reports");
    let answers = AnswerFolder::open(&reports)
        .with_context(|| format!("the answers to reports in {}", reports.display()))?;
    let ledger = Ledger::new(Ports {
        answers: Arc::new(answers),
        backups: Arc::new(adapters_backup::port::S3Stores),
        bills,
        log: store.log(),
        views: Arc::clone(&views.views),
        hosts: Arc::new(commands::ports::NoHosts),
        leases: store.leases().await.context("the leases")?,
        vault: Arc::new(vault),
        clock: clock.clone(),
        ids: Arc::new(SystemIds),
        providers: providers(config)?,
    });
    Ok(Opened { signer: Arc::new(signer), store, views, ledger })
}

/// What sums bills' lines: the lake itself, or ClickHouse before it.
#[cfg(feature = "clickhouse")]
async fn with_clickhouse(config: &Config, lake: Arc<dyn BillStore>) -> Result<Arc<dyn BillStore>> {
    let Some(url) = &config.clickhouse else { return Ok(lake) };
    let options = adapters_clickhouse::Options {
        url: url.clone(),
        password: std::env::var(crate::config::CLICKHOUSE_PASSWORD_VARIABLE).ok(),
        tags: config.clickhouse_tags.clone(),
    };
    let engine = adapters_clickhouse::ClickHouse::open(&options, lake).await;
    Ok(Arc::new(engine.context("clickhouse")?))
}

fn providers(config: &Config) -> Result<Vec<Arc<dyn Provider>>> {
    let mut providers = adapters_clouds::providers();
    if let Some(file) = &config.sim {
        let cloud = SimCloud::open(file, Arc::new(SystemClock))
            .with_context(|| format!("the sim cloud {}", file.display()))?;
        providers.push(Arc::new(cloud));
    }
    providers.sort_by_key(|provider| provider.name());
    Ok(providers)
}

/// Serves until a signal comes; the address is told once it is listened to.
pub(crate) async fn serve(config: &Config, manner: &Manner) -> Result<()> {
    let tls = match (&config.tls_cert, &config.tls_key) {
        (Some(cert), Some(key)) => Some(http::tls_from_pem(cert, key).context("TLS")?),
        _ => None,
    };
    // First, so that a second server on the same address fails before it touches anything.
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.listen))?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}", listener.local_addr()?);

    let Opened { signer, store, views: OpenViews { views, running, check }, ledger } =
        open(config).await?;
    let witness = open_witness(config, &signer, &store).await?;
    let (stop, stopping) = watch::channel(false);
    let publishing = publish(witness, &store, stopping.clone(), stop.clone());
    first_start(&ledger, manner).await.context("the first start")?;

    let (halt, halting) = watch::channel(false);
    let runner = {
        let runner = Runner::new(Arc::clone(&ledger), config.runner_concurrency);
        let (halted, views) = (told(halting.clone()), Arc::clone(&views));
        let head = store.log().head().await.context("the log's head")?.position;
        tokio::spawn(async move {
            // It looks at what the views show: they should first see what is there.
            let mut halted = std::pin::pin!(halted);
            tokio::select! {
                () = &mut halted => return,
                _ = views.reach_position(head, PATIENCE) => {}
            }
            runner.run(halted).await;
        })
    };
    let own_host = match &manner.own_host {
        None => tokio::spawn(async {}),
        Some(own) => local_host::start(&ledger, own, &config.data, told(halting.clone())).await?,
    };
    let desk = {
        let (ledger, halted) = (Arc::clone(&ledger), told(halting.clone()));
        tokio::spawn(async move { ledger.desk.watch(&ledger, halted).await })
    };
    let consoles = {
        let (ledger, halted) = (Arc::clone(&ledger), told(halting.clone()));
        tokio::spawn(async move { commands::consoles::watch(&ledger, halted).await })
    };
    let schedule = tokio::spawn(schedule::run(
        Arc::clone(&ledger),
        Duration::from_secs(config.sync_interval_s),
        told(halting.clone()),
    ));
    let costs = tokio::spawn(cost_watch::run(Arc::clone(&ledger), told(halting.clone())));
    let pulls = tokio::spawn(schedule::run_pulls(Arc::clone(&ledger), told(halting.clone())));
    let bin = tokio::spawn(schedule::run_bin(Arc::clone(&ledger), told(halting.clone())));
    let groups = tokio::spawn(schedule::run_groups(Arc::clone(&ledger), told(halting.clone())));
    let plans = tokio::spawn(schedule::run_plans(Arc::clone(&ledger), told(halting.clone())));
    let drains = tokio::spawn(schedule::run_drains(Arc::clone(&ledger), told(halting.clone())));
    let collections =
        tokio::spawn(schedule::run_collections(Arc::clone(&ledger), told(halting.clone())));
    let days = tokio::spawn(schedule::run_days(Arc::clone(&ledger), told(halting)));

    let service = http::Service::new(
        Arc::clone(&ledger),
        http::Options {
            signer: Some(signer),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            checks: vec![("views", check)],
            adopt_span: config.otlp_endpoint.is_some().then_some(telemetry::adopt),
            ..http::Options::default()
        },
    );
    tracing::info!(url, store = config.store, data = %config.data.display(), "listening");
    let until = {
        let (stop, until_stdin_closes) = (stop.clone(), manner.until_stdin_closes);
        async move {
            let why = asked_to_stop(stopping, until_stdin_closes).await;
            tracing::info!(why, "stopping");
            stop.send_replace(true);
        }
    };
    let grace = Duration::from_secs(config.grace_s);
    let served = http::serve(listener, tls, service, until, grace).await;

    halt.send_replace(true);
    let _ = tokio::join!(
        runner,
        own_host,
        desk,
        consoles,
        schedule,
        costs,
        pulls,
        bin,
        groups,
        plans,
        drains,
        collections,
        days
    );
    stop.send_replace(true);
    let published = publishing.await.context("the witness panicked")?;
    running.stop().await;
    drop((views, ledger, store));
    tracing::info!("stopped");
    served.context("the listener failed")?;
    published.context("the witness does not vouch for the store")
}

/// Opens the witness and compares the store with it: a store whose past was changed, or an old
/// backup, is not served.
async fn open_witness(config: &Config, signer: &Arc<dyn Sign>, store: &Store) -> Result<Witness> {
    let path = config.witness_file();
    let witness = Witness::open(&path, Arc::clone(signer), verify_signature)
        .with_context(|| format!("the witness {}", path.display()))?;
    let head = store.log().head().await.context("the log's head")?.position;
    if witness.size().await == 0 && head > 0 {
        // Not an error: a log that was just imported has none. But a deleted witness looks the same.
        tracing::warn!(
            witness = %path.display(),
            position = head,
            "the witness is new and the log is not: nothing vouches for the records so far"
        );
    }
    let compared = witness.compare(store.log().as_ref()).await;
    compared.with_context(|| format!("the store does not fit the witness {}", path.display()))?;
    Ok(witness)
}

/// Publishes tree heads until the end; when the store's past was changed under us, the server stops.
fn publish(
    witness: Witness,
    store: &Store,
    stopping: watch::Receiver<bool>,
    stop: watch::Sender<bool>,
) -> JoinHandle<Result<(), WitnessFault>> {
    let log = store.log();
    tokio::spawn(async move {
        let ended = witness.run(log.as_ref(), &SystemClock, told(stopping)).await;
        if let Err(fault) = &ended {
            tracing::error!(%fault, "the witness does not vouch for the store any more");
            stop.send_replace(true);
        }
        ended
    })
}

/// How long the views of a new ledger are waited for.
const FIRST_VIEWS: Duration = Duration::from_secs(5);

/// The project `default` and one admin token, if nobody has made any yet.
async fn first_start(ledger: &Arc<Ledger>, manner: &Manner) -> Result<()> {
    let missing = async |kind: &str| -> Result<bool> {
        let filter = AuditFilter { kind: Some(kind.to_owned()), ..AuditFilter::default() };
        Ok(ledger.ports.log.search(&filter, 0, false, 1).await?.is_empty())
    };
    let new = missing("project").await?;
    if new {
        first(ledger, "project", "create", json!({"name": "default"})).await?;
    }
    if missing("token").await?
        && let Some(secret) = first(ledger, "token", "issue", admin("admin")).await?
    {
        match &manner.token_file {
            Some(path) => write_secret(path, &secret)
                .with_context(|| format!("the token file {}", path.display()))?,
            None => eprintln!(
                "\nThe first admin token, shown only now:\n\n    {secret}\n\n\
                 Keep it:  export SKYLEDGER_TOKEN={secret}\n"
            ),
        }
    }
    if new {
        let head = ledger.ports.log.head().await?.position;
        // Whoever asks a new ledger at once finds what it was born with. When views are late it
        // starts all the same, and says so to who asks.
        let _ = ledger.ports.views.reach_position(head, FIRST_VIEWS).await;
    }
    Ok(())
}

/// The first of a kind, and its secret if it has one and it was made here. Of several servers that
/// start on one empty store all may have found none: by the request's key one makes it.
async fn first(
    ledger: &Arc<Ledger>,
    kind: &str,
    verb: &str,
    body: serde_json::Value,
) -> Result<Option<String>> {
    let mut submission = submission(kind, verb, body)?;
    submission.idempotency_key = Some(format!("first-{kind}"));
    match ledger.submit(submission).await {
        Ok(outcome) => Ok(outcome.secret),
        // The same request of a server with other keys: digests of requests are keyed.
        Err(SubmitFault::KeyReused) => Ok(None),
        Err(fault) => Err(fault).with_context(|| format!("the first {kind}")),
    }
}

fn admin(name: &str) -> serde_json::Value {
    json!({"name": name, "role": "admin", "reach": "all"})
}

/// Issues a token that may do everything, and gives its secret.
pub(crate) async fn issue_admin(ledger: &Arc<Ledger>, name: &str) -> Result<String> {
    let submission = submission("token", "issue", admin(name))?;
    let outcome = ledger.submit(submission).await.context("a new token")?;
    outcome.secret.context("a new token has a secret")
}

fn submission(kind: &str, verb: &str, body: serde_json::Value) -> Result<Submission> {
    let kind = kinds::by_name(kind).with_context(|| format!("{kind} is not a kind"))?;
    Ok(Submission::new(Principal::system("setup"), kind, None, verb, body))
}

fn write_secret(path: &std::path::Path, secret: &str) -> std::io::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let mut file =
        std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    writeln!(file, "{secret}")?;
    file.sync_all()
}

/// Comes back when a channel says yes, or its sender is gone.
async fn told(mut channel: watch::Receiver<bool>) {
    let _ = channel.wait_for(|yes| *yes).await;
}

/// Comes back with the signal that asks this process to end.
pub(crate) async fn signalled() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = terminated => "SIGTERM",
        _ = tokio::signal::ctrl_c() => "SIGINT",
    }
}

/// Comes back with the reason to stop: a signal, a part that cannot go on, or a parent that is gone.
async fn asked_to_stop(stopping: watch::Receiver<bool>, until_stdin_closes: bool) -> &'static str {
    let orphaned = async {
        if !until_stdin_closes {
            return std::future::pending().await;
        }
        // A thread of its own: a blocking read of the runtime would hold up its end.
        let (gone, waiting) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            let _ = gone.send(());
        });
        let _ = waiting.await;
    };
    tokio::select! {
        why = signalled() => why,
        () = orphaned => "standard input has ended",
        () = told(stopping) => "a part cannot go on",
    }
}

/// Waits until the views have seen everything that is in the log, for as long as they come nearer:
/// after an import they are built, and a long log takes its time. Tells `progress` how far they
/// are, of how much.
pub(crate) async fn caught_up(
    opened: &Opened,
    progress: &(dyn Fn(u64, u64) + Send + Sync),
) -> Result<u64> {
    let head = opened.store.log().head().await?.position;
    let views: &dyn Views = opened.views.views.as_ref();
    let (mut furthest, mut since) = (0, Instant::now());
    loop {
        let position = match views.reach_position(head, LOOK).await {
            Ok(()) => return Ok(head),
            Err(ViewFault::Behind { position, .. }) => position,
            Err(fault) => return Err(fault).context("the views"),
        };
        progress(position, head);
        if position > furthest {
            (furthest, since) = (position, Instant::now());
        }
        // A fault may pass, as a store's that is away for a moment does.
        match (opened.views.check)() {
            Err(why) if since.elapsed() > PATIENCE => bail!("the views do not go on: {why}"),
            _ if since.elapsed() > STILL => {
                bail!("the views have stood at position {position} of {head} for {STILL:?}")
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_servers_that_all_found_nothing_one_makes_the_first_project_and_token() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { data: folder.path().to_owned(), ..Config::default() };
        let Opened { store, views, ledger, .. } = open(&config).await.unwrap();
        let start = async || {
            first(&ledger, "project", "create", json!({"name": "default"})).await.unwrap();
            first(&ledger, "token", "issue", admin("admin")).await.unwrap()
        };
        let (one, other, late) = tokio::join!(start(), start(), start());
        let secrets: Vec<_> = [one, other, late].into_iter().flatten().collect();
        assert_eq!(secrets.len(), 1, "one server shows one token");
        assert_eq!(store.log().head().await.unwrap().position, 2, "one project and one token");
        views.running.stop().await;
    }
}
