//! The machine that this process runs on as a host of ours: what works for it, and the agent beside a
//! server that serves it itself.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use adapters_agent::{Agent, EpochFile, LocalLine, Options};
use adapters_kvm::{
    driver::{self, KvmHost},
    storage::volume_group::VolumeGroups,
};
use adapters_sim::SimHosts;
use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use commands::{
    ledger::Ledger,
    ports::{DriverFault, HostDriver, LocalHost, Query, ServerPower, ServerPowers},
    submit::{Submission, SubmitFault},
};
use domain::{
    compute::{host::HostSighting, server::elsewhere::LIVE},
    kernel::{Principal, codes},
    kinds,
};
use serde_json::json;
use tokio::{
    sync::{Mutex, watch},
    task::JoinHandle,
};
use uuid::Uuid;

use crate::edge::SystemClock;

/// How long the views may take to show a host that is there.
const VIEWS_PATIENCE: Duration = Duration::from_secs(30);
/// What a host in memory looks like: cells, cores of each, memory of each in MiB.
const SIMULATED: (u32, u32, u64) = (2, 8, 32_768);

/// What works for a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Means {
    /// The machine's own libvirt daemon and tools.
    Libvirt(Libvirt),
    /// Nothing real: a host in memory, kept on a file.
    Simulated {
        /// How long each part of an order takes.
        pause: Duration,
    },
}

/// The machine's own libvirt daemon and tools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Libvirt {
    /// The daemon's socket; its usual place when it is left out.
    pub(crate) socket: Option<PathBuf>,
    /// What the host reaches besides: segments, for instance.
    pub(crate) labels: BTreeSet<String>,
    /// What images may take that no disk reads from; none of them go when it is left out.
    pub(crate) images_max_bytes: Option<u64>,
    /// Folders that other hosts reach as well.
    pub(crate) storages: Vec<PathBuf>,
    /// Volume groups that disks may lie in.
    pub(crate) volume_groups: Vec<String>,
    /// How other hosts reach it, where it takes servers that run there.
    pub(crate) reached: Option<driver::Reached>,
}

impl Libvirt {
    /// How the host is worked for, with its files in this folder.
    pub(crate) fn options(&self, folder: &Path) -> Result<driver::Options> {
        let folder = std::path::absolute(folder).context("the data folder")?;
        let mut options = driver::Options::new(folder);
        if let Some(socket) = &self.socket {
            options.libvirt.socket.clone_from(socket);
        }
        options.labels.clone_from(&self.labels);
        options.storages.clone_from(&self.storages);
        let groups = VolumeGroups::new(self.volume_groups.clone());
        options.volume_groups = groups.context("--volume-group")?;
        options.images_max_bytes = self.images_max_bytes;
        options.reached.clone_from(&self.reached);
        Ok(options)
    }
}

/// The host as its agent reaches it; its files are in this folder.
pub(crate) async fn reach(means: &Means, host: Uuid, folder: &Path) -> Result<Arc<dyn LocalHost>> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    match means {
        Means::Libvirt(own) => {
            let host = KvmHost::open(own.options(folder)?).await.context("the host")?;
            host.guard().await.context("the rules of the host's servers")?;
            let changes = Mutex::new(host.changes());
            Ok(Arc::new(Kvm(host, changes)))
        }
        Means::Simulated { pause } => {
            let file = folder.join("simulated.json");
            let hosts = SimHosts::open(&file).with_context(|| file.display().to_string())?;
            hosts.slow_down(*pause);
            let (cells, cores, memory_mib) = SIMULATED;
            let mut seen = SimHosts::sighting(cells, cores, memory_mib);
            // It takes what comes from elsewhere, as a host does that others reach.
            seen.labels.insert(LIVE.to_owned());
            Ok(Arc::new(hosts.local(host, seen)))
        }
    }
}

/// This machine with KVM, and what tells that a server of it may have changed.
struct Kvm(KvmHost, Mutex<watch::Receiver<u64>>);

#[async_trait]
impl LocalHost for Kvm {
    fn agent(&self) -> String {
        concat!("skyledger ", env!("CARGO_PKG_VERSION"), " kvm").to_owned()
    }

    async fn sight(&self) -> Result<HostSighting, DriverFault> {
        self.0.sighting().await
    }

    async fn servers(&self) -> Result<ServerPowers, DriverFault> {
        let power = |(id, seen): (Uuid, driver::Seen)| {
            (id, ServerPower { number: seen.number, power: seen.power })
        };
        Ok(self.0.powers().await?.into_iter().map(power).collect())
    }

    async fn changed(&self) {
        if self.1.lock().await.changed().await.is_err() {
            // Nothing will tell of anything any more.
            std::future::pending::<()>().await;
        }
    }

    async fn reserve_cpus(&self, cpus: &BTreeSet<u32>) -> Result<(), DriverFault> {
        self.0.reserve_cpus(cpus).await
    }

    fn driver(&self, epoch: u64) -> Arc<dyn HostDriver> {
        self.0.driver(epoch)
    }
}

/// A host that a server works for itself.
#[derive(Clone, Debug)]
pub(crate) struct OwnHost {
    /// Its name; the machine's own when it is empty.
    pub(crate) name: String,
    /// What works for it.
    pub(crate) means: Means,
}

/// Begins to work for it; it is enrolled if nobody has done that.
pub(crate) async fn start(
    ledger: &Arc<Ledger>,
    own: &OwnHost,
    data: &Path,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<JoinHandle<()>> {
    let name = if own.name.is_empty() { machine_name()? } else { own.name.clone() };
    let id = enrolled(ledger, &name).await.with_context(|| format!("the host {name}"))?;
    let folder = data.join("host");
    let local = reach(&own.means, id, &folder).await?;
    let line = Arc::new(LocalLine::new(Arc::clone(ledger), id));
    let options = Options { epoch_file: Some(EpochFile::within(&folder)?), ..Options::default() };
    let agent = Agent::new(line, local, Arc::new(SystemClock), options);
    tracing::info!(host = %id, name, "this server works for a host itself");
    Ok(tokio::spawn(async move {
        if let Err(fault) = agent.run(stop).await {
            tracing::error!(%fault, "this server does not work for its host any more");
        }
    }))
}

/// What the machine calls itself.
fn machine_name() -> Result<String> {
    let file = "/proc/sys/kernel/hostname";
    let name = std::fs::read_to_string(file).with_context(|| file.to_owned())?;
    match name.trim() {
        "" => bail!("this machine has no name: give the host one with --local-host NAME"),
        name => Ok(name.to_owned()),
    }
}

/// The host of this name.
async fn enrolled(ledger: &Ledger, name: &str) -> Result<Uuid> {
    let kind = kinds::by_name("host").context("host is not a kind")?;
    let body = json!({"name": name});
    let enrol = Submission::new(Principal::system("local-host"), kind, None, "enrol", body);
    match ledger.submit(enrol).await {
        Ok(outcome) => return Ok(outcome.id),
        Err(SubmitFault::Refused(no)) if *no.code == codes::ALREADY_CLAIMED => {}
        Err(fault) => return Err(fault.into()),
    }
    let head = ledger.ports.log.head().await?.position;
    ledger.ports.views.reach_position(head, VIEWS_PATIENCE).await?;
    let query = Query::all().with("kind", "host").with("name", name);
    let rows = ledger.ports.views.list("inventory", &query).await?.rows;
    let id = rows.first().and_then(|row| row.key.parse().ok());
    id.context("it is enrolled, but is not listed")
}
