//! What every command needs: the log, the views, the vault, the clock, the providers; and the
//! states of streams, folded and kept.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use domain::{
    compute::{
        backup_store::BackupStore,
        move_in::{self, MoveIn},
        server::Server,
    },
    kernel::{Decider, Kind, Principal, State, StreamId},
    kinds,
    tenancy::cloud_account::CloudAccount,
};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    desk::Desk,
    fleet::FleetCache,
    pace::{AccountPace, Paces},
    ports::{
        Access, Answers, BackupStores, BillStore, Clock, EventLog, HostDriver, Hosts, Leases,
        LogFault, NewId, Provider, StoreAccess, Vault, VaultFault, Views,
    },
    progress::{Meters, Progress, Told},
};

/// Records read at once when a stream is folded.
const STREAM_PAGE: usize = 1_000;
/// States kept; the hot streams of an estate of some 100,000 resources. A state takes some KiB.
const CACHE_MAX: usize = 20_000;

/// Everything a command needs from outside.
#[derive(Clone)]
pub struct Ports {
    /// Answers to reports.
    pub answers: Arc<dyn Answers>,
    /// Stores of backups.
    pub backups: Arc<dyn BackupStores>,
    /// Bills' lines.
    pub bills: Arc<dyn BillStore>,
    /// The log.
    pub log: Arc<dyn EventLog>,
    /// The views.
    pub views: Arc<dyn Views>,
    /// The leases of orders.
    pub leases: Arc<dyn Leases>,
    /// Secrets.
    pub vault: Arc<dyn Vault>,
    /// The hosts that this process works for.
    pub hosts: Arc<dyn Hosts>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Ids.
    pub ids: Arc<dyn NewId>,
    /// The providers there are.
    pub providers: Vec<Arc<dyn Provider>>,
}

/// A folded stream.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// How many records were folded; 0 when there are none.
    pub revision: u64,
    /// The state.
    pub state: Box<dyn State>,
}

/// A stream that cannot be folded, or a log that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadFault {
    /// The log failed.
    #[error("the stream cannot be read")]
    Log(#[from] LogFault),
    /// A record does not fold: it was written by a newer program, or is damaged.
    #[error("the record at position {position} does not read as {event_type}")]
    Record {
        /// Where.
        position: u64,
        /// Its tag.
        event_type: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// An account's secret cannot be opened.
    #[error("the account's credential cannot be opened")]
    Vault(#[from] VaultFault),
    /// There is no such account, or no such provider in this program.
    #[error("{0}")]
    Missing(String),
}

#[derive(Default)]
struct Cache {
    young: HashMap<StreamId, Loaded>,
    old: HashMap<StreamId, Loaded>,
}

impl Cache {
    fn get(&mut self, stream: &StreamId) -> Option<Loaded> {
        if let Some(loaded) = self.young.get(stream) {
            return Some(loaded.clone());
        }
        let loaded = self.old.remove(stream)?;
        self.put(stream.clone(), loaded.clone());
        Some(loaded)
    }

    fn put(&mut self, stream: StreamId, loaded: Loaded) {
        // Two generations: what was not asked for during a whole one is forgotten.
        if self.young.len() >= CACHE_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(stream, loaded);
    }
}

/// The ledger, as the parts of a server share it.
pub struct Ledger {
    /// The outside.
    pub ports: Ports,
    /// How fast each account may be called.
    pub paces: Arc<Paces>,
    /// Where agents of hosts come to.
    pub desk: Arc<Desk>,
    /// How far transfers of this process are.
    pub meters: Meters,
    /// Held by the one command that takes a place in the fleet now.
    pub(crate) placing: futures::lock::Mutex<()>,
    pub(crate) fleet: futures::lock::Mutex<FleetCache>,
    cache: Mutex<Cache>,
}

impl Ledger {
    /// Puts a ledger together.
    pub fn new(ports: Ports) -> Arc<Self> {
        let paces = Arc::new(Paces::new(ports.clock.clone()));
        let desk = Desk::new(ports.clock.clone(), format!("desk-{}", ports.ids.new_id()));
        Arc::new(Self {
            ports,
            paces,
            desk,
            meters: Meters::default(),
            placing: futures::lock::Mutex::default(),
            fleet: futures::lock::Mutex::default(),
            cache: Mutex::default(),
        })
    }

    /// How far the transfer of a resource's order is, as far as this process hears of it.
    pub fn progress(&self, kind: &str, id: &str) -> Option<Progress> {
        let own = || self.desk.progress(kind, id).or_else(|| self.meters.find(kind, id));
        // One that comes here from elsewhere has no order of its own until it is here: its move has.
        let comes = || {
            let server = (kind == Server::KIND).then(|| id.parse().ok()).flatten()?;
            self.meters.find(MoveIn::KIND, &move_in::id_of(server).to_string())
        };
        own().or_else(comes)
    }

    /// How far all transfers are, as far as this process hears of them.
    pub fn transfers(&self) -> Vec<Told> {
        let mut all = self.desk.told();
        all.extend(self.meters.all());
        all
    }

    /// The provider of this name.
    pub fn provider(&self, name: &str) -> Option<&Arc<dyn Provider>> {
        self.ports.providers.iter().find(|provider| provider.name() == name)
    }

    /// The driver of a host that this process works for, or whose agent it hears.
    pub fn host_driver(&self, host: Uuid) -> Option<Arc<dyn HostDriver>> {
        self.ports.hosts.driver(host).or_else(|| self.desk.driver(host))
    }

    /// A stream's state as it was last known here: perhaps not its newest. An append with its
    /// revision finds out.
    pub(crate) async fn recall(&self, kind: &Kind, id: &str) -> Result<Loaded, LoadFault> {
        let stream = StreamId::new(kind.name, id);
        let known = self.cache().get(&stream);
        match known {
            Some(loaded) => Ok(loaded),
            None => self.load(kind, id).await,
        }
    }

    /// A stream's state, up to its newest record.
    pub async fn load(&self, kind: &Kind, id: &str) -> Result<Loaded, LoadFault> {
        let stream = StreamId::new(kind.name, id);
        let known = self.cache().get(&stream);
        let mut loaded = known.unwrap_or_else(|| Loaded { revision: 0, state: (kind.empty)() });
        loop {
            let records = self.ports.log.stream(&stream, loaded.revision, STREAM_PAGE).await?;
            for record in &records {
                loaded.state.evolve(record.event_type(), record.data()).map_err(|source| {
                    LoadFault::Record {
                        position: record.position(),
                        event_type: record.event_type().to_owned(),
                        source,
                    }
                })?;
                loaded.revision = record.revision();
            }
            if records.len() < STREAM_PAGE {
                break;
            }
        }
        if loaded.revision > 0 {
            self.remember(stream, loaded.clone());
        }
        Ok(loaded)
    }

    pub(crate) fn remember(&self, stream: StreamId, loaded: Loaded) {
        let mut cache = self.cache();
        // A slow reader must not put an older state over a newer one.
        let newer = cache.get(&stream).is_some_and(|known| known.revision > loaded.revision);
        if !newer {
            cache.put(stream, loaded);
        }
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A cloud account's state; none when there is no such account.
    pub async fn account(&self, id: Uuid) -> Result<Option<CloudAccount>, LoadFault> {
        Ok(self.account_at(id).await?.1)
    }

    /// The newest state of a stream with its type, and its revision; 0 and the empty state when
    /// there is none.
    pub async fn typed<T: Decider>(&self, id: &str) -> Result<(u64, T), LoadFault> {
        let kind = kinds::by_name(T::KIND)
            .ok_or_else(|| LoadFault::Missing(format!("{} is not a kind", T::KIND)))?;
        let loaded = self.load(kind, id).await?;
        let state = loaded.state.as_any().downcast_ref::<T>();
        let state =
            state.ok_or_else(|| LoadFault::Missing(format!("{} has two types", T::KIND)))?;
        Ok((loaded.revision, state.clone()))
    }

    /// The same with its stream's revision.
    pub(crate) async fn account_at(
        &self,
        id: Uuid,
    ) -> Result<(u64, Option<CloudAccount>), LoadFault> {
        let Some(kind) = kinds::by_name("cloud-account") else { return Ok((0, None)) };
        let loaded = self.load(kind, &id.to_string()).await?;
        if loaded.revision == 0 {
            return Ok((0, None));
        }
        let state = serde_json::from_slice(&loaded.state.json());
        let state = state.map_err(|source| LoadFault::Record {
            position: 0,
            event_type: "cloud-account".to_owned(),
            source,
        })?;
        Ok((loaded.revision, Some(state)))
    }

    /// What is needed to call an account's provider; with `candidate`, by another credential than
    /// the one in use.
    pub fn access(
        &self,
        id: Uuid,
        account: &CloudAccount,
        candidate: Option<&str>,
    ) -> Result<(Arc<dyn Provider>, Access), LoadFault> {
        let provider = self.provider(&account.provider).cloned().ok_or_else(|| {
            LoadFault::Missing(format!("this program has no provider {}", account.provider))
        })?;
        let sealed = candidate.unwrap_or(&account.credential);
        let secret = self.ports.vault.open(sealed, &credential_context(id))?;
        let credential: Value = serde_json::from_slice(&secret)
            .map_err(|_| LoadFault::Missing("the credential does not read".to_owned()))?;
        let access = Access {
            account: id,
            endpoint: account.endpoint.clone(),
            credential,
            identity: account.external_account.clone(),
            pace: Arc::new(AccountPace { paces: self.paces.clone(), account: id }),
        };
        Ok((provider, access))
    }

    /// What a server does at its first boot, in clear; none when nobody wants anything, and once it has
    /// been made.
    pub(crate) fn userdata(&self, id: &str, server: &Server) -> Result<Option<String>, LoadFault> {
        let home = server.home.as_ref().filter(|_| server.observation.seen.is_none());
        let Some(sealed) = home.and_then(|home| home.userdata.as_deref()) else { return Ok(None) };
        let opened = self.ports.vault.open(sealed, &userdata_context(id))?;
        let text = String::from_utf8(opened);
        Ok(Some(text.map_err(|_| LoadFault::Missing("the userdata does not read".to_owned()))?))
    }

    /// The password that an order is to set, in clear; none for an order that sets none.
    pub(crate) fn password(&self, id: &str, order: &Value) -> Result<Option<String>, LoadFault> {
        let Some(sealed) = order["data"]["password"].as_str() else { return Ok(None) };
        let opened = self.ports.vault.open(sealed, &password_context(id))?;
        let text = String::from_utf8(opened);
        Ok(Some(text.map_err(|_| LoadFault::Missing("the password does not read".to_owned()))?))
    }

    /// What is needed to use a backup store; with `candidate`, by another credential than the one in
    /// use.
    pub(crate) fn store_access(
        &self,
        id: Uuid,
        store: &BackupStore,
        candidate: Option<&str>,
    ) -> Result<StoreAccess, LoadFault> {
        let sealed = candidate.unwrap_or(&store.credential);
        let secret = self.ports.vault.open(sealed, &store_context(id))?;
        let keys = serde_json::from_slice(&secret)
            .map_err(|_| LoadFault::Missing("the credential does not read".to_owned()))?;
        Ok(StoreAccess { place: store.place.clone(), keys })
    }

    /// Skyledger's own principal for a part of it.
    pub fn system(part: &str) -> Principal {
        Principal::system(part)
    }
}

/// What a backup store's credential is sealed for.
pub(crate) fn store_context(store: Uuid) -> String {
    format!("backup-store/{store}")
}

/// What a bill source's own credential is sealed for.
pub(crate) fn source_context(source: Uuid) -> String {
    format!("bill-source/{source}")
}

/// What a server's userdata is sealed for.
pub(crate) fn userdata_context(server: &str) -> String {
    format!("server/{server}/userdata")
}

/// What a password inside a server is sealed for.
pub(crate) fn password_context(server: &str) -> String {
    format!("server/{server}/password")
}

/// What a cloud account's credential is sealed for.
pub(crate) fn credential_context(account: Uuid) -> String {
    format!("cloud-account/{account}")
}
