//! Which of the host's CPUs servers run on.
//!
//! A server that was given CPUs of its own is defined with them. All others share what is left: neither those,
//! nor what the host's settings keep from servers. libvirt and the kernel know nothing of that, so everybody
//! who shares is told where to run: from the start by its definition, and while it runs whenever what is
//! shared has changed. Who gets CPUs of its own is started after the others have left them.
//!
//! What binds a server's virtual CPUs to cells binds them to the shared CPUs of those. Where settings that came
//! later leave nobody a place, servers run before the host does: first what is kept from servers is shared, and
//! then everything.
//!
//! ```text
//! <folder>/cpus-reserved.json      the CPUs that no server gets, as the host's settings said last
//! ```
//!
//! Only what runs is told, and it is asked afterwards: its definition is made anew whenever it starts.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use adapters_libvirt::{Affects, Code, Connection, Domain, Fault, State, description::Description};
use commands::ports::DriverFault;
use domain::compute::{placement::Holding, server::Order};
use serde::{Deserialize, Serialize};
use tokio::{fs, sync::Mutex as AsyncMutex};
use uuid::Uuid;

use super::{
    Inner, Step, Work, disks::described, fault::libvirt, migrate::moving, records::Record,
};
use crate::{
    observe::{Tree, topology},
    storage::{StorageFault, files},
};

/// What a server has of its host's CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cpus {
    /// Those that are its alone; when there are any, it runs nowhere else.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    own: BTreeSet<u32>,
    /// The cells that its first virtual CPUs run in, in turn: each with how many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    cells: Vec<(u32, u32)>,
}

impl Cpus {
    fn of(holding: &Holding) -> Self {
        let cells = holding.cells.iter().map(|cell| (cell.cell, cell.vcpus));
        Self { own: holding.cpus.clone(), cells: cells.collect() }
    }

    /// As libvirt was told, for a server of which nothing is written down.
    fn told(is: &Description) -> Self {
        let pins = is.pins.values().chain([&is.emulator_pins]);
        let cells = is.cells.iter().filter_map(|cell| {
            Some((cell.host_cell?, u32::try_from(cell.vcpus.len()).unwrap_or(u32::MAX)))
        });
        Self { own: pins.flatten().copied().collect(), cells: cells.collect() }
    }

    fn is_free(&self) -> bool {
        self.own.is_empty() && self.cells.is_empty()
    }

    /// The cell that a virtual CPU is to run in.
    fn cell(&self, vcpu: u32) -> Option<u32> {
        let mut end = 0_u32;
        self.cells.iter().find_map(|(cell, vcpus)| {
            end = end.saturating_add(*vcpus);
            (vcpu < end).then_some(*cell)
        })
    }
}

/// Where a server that shares CPUs runs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Spread {
    /// Each of its virtual CPUs.
    vcpus: Vec<BTreeSet<u32>>,
    /// Everything else that it does.
    rest: BTreeSet<u32>,
}

/// The CPUs that servers share.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shared {
    /// Those of each cell that are on.
    cells: BTreeMap<u32, BTreeSet<u32>>,
    /// Every CPU that is on.
    all: BTreeSet<u32>,
    /// Those of them that nobody has for itself, and that are not kept from servers.
    open: BTreeSet<u32>,
}

impl Shared {
    fn new(
        cells: BTreeMap<u32, BTreeSet<u32>>,
        own: &BTreeSet<u32>,
        reserved: &BTreeSet<u32>,
    ) -> Self {
        let all: BTreeSet<u32> = cells.values().flatten().copied().collect();
        let others = &all - own;
        let found = [&others - reserved, others, all.clone()];
        let open = found.into_iter().find(|cpus| !cpus.is_empty()).unwrap_or_default();
        Self { cells, all, open }
    }

    /// Where a server runs with so many virtual CPUs.
    fn spread(&self, cpus: &Cpus, vcpus: u32) -> Spread {
        let place = |vcpu: u32| {
            let cell = cpus.cell(vcpu).and_then(|cell| self.cells.get(&cell));
            let near = cell.map(|cell| cell & &self.open).filter(|near| !near.is_empty());
            near.unwrap_or_else(|| self.open.clone())
        };
        Spread { vcpus: (0..vcpus).map(place).collect(), rest: self.open.clone() }
    }

    /// The same for one whose definition is its own: it keeps to what that says, as far as that is shared.
    fn spread_within(&self, is: &Description, vcpus: u32) -> Spread {
        let within = |theirs: Option<&Vec<u32>>| {
            let theirs: BTreeSet<u32> = theirs.into_iter().flatten().copied().collect();
            if theirs.is_empty() {
                return self.open.clone();
            }
            let both = &theirs & &self.open;
            if both.is_empty() { theirs } else { both }
        };
        let vcpus = (0..vcpus).map(|vcpu| within(is.pins.get(&vcpu)));
        Spread { vcpus: vcpus.collect(), rest: within(Some(&is.emulator_pins)) }
    }

    /// Where it runs now.
    fn now(&self, is: &Description) -> Spread {
        let place = |told: Option<&Vec<u32>>| {
            let told: BTreeSet<u32> = told.into_iter().flatten().copied().collect();
            let told = &told & &self.all;
            if told.is_empty() { self.all.clone() } else { told }
        };
        let vcpus = (0..is.vcpus).map(|vcpu| place(is.pins.get(&vcpu)));
        Spread { vcpus: vcpus.collect(), rest: place(Some(&is.emulator_pins)) }
    }

    /// Writes into a server's machine where it runs, when that is not everywhere.
    fn bind(&self, machine: &mut Description, cpus: &Cpus) {
        // Where the kernel names no CPUs, nobody is kept to any.
        if self.all.is_empty() || (self.open == self.all && cpus.cells.is_empty()) {
            return;
        }
        let list = |cpus: BTreeSet<u32>| cpus.into_iter().collect::<Vec<_>>();
        let Spread { vcpus, rest } = self.spread(cpus, machine.vcpus_max.max(machine.vcpus));
        machine.pins = (0..).zip(vcpus.into_iter().map(list)).collect();
        machine.emulator_pins = list(rest);
    }
}

/// Who has which of the host's CPUs, and what servers were told of that.
pub(super) struct Keeper {
    file: PathBuf,
    reserved: Mutex<BTreeSet<u32>>,
    held: AsyncMutex<Option<Held>>,
}

/// What is known of the host's servers.
#[derive(Default)]
struct Held {
    /// What each has.
    servers: BTreeMap<Uuid, Of>,
    /// Whether some that run may be kept to CPUs that they need not be kept to.
    stale: bool,
    /// Where those run that were looked at, and libvirt's number of the machine that was.
    told: BTreeMap<Uuid, (u32, Shared)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Of {
    cpus: Cpus,
    adopted: bool,
}

impl Of {
    fn read(record: &Record) -> Option<Self> {
        Some(Self { cpus: record.cpus.clone()?, adopted: record.adopted })
    }
}

impl Held {
    fn own(&self) -> BTreeSet<u32> {
        self.servers.values().flat_map(|of| &of.cpus.own).copied().collect()
    }
}

impl Keeper {
    /// With what the settings said last.
    pub(super) async fn open(folder: &std::path::Path) -> Result<Self, StorageFault> {
        let file = folder.join("cpus-reserved.json");
        let reserved = match fs::read(&file).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeSet::new(),
            read => {
                let text = read.map_err(StorageFault::file("cannot read", &file))?;
                serde_json::from_slice(&text)
                    .map_err(|error| StorageFault::Unfit(format!("{}: {error}", file.display())))?
            }
        };
        Ok(Self { file, reserved: Mutex::new(reserved), held: AsyncMutex::default() })
    }

    fn reserved(&self) -> BTreeSet<u32> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn reserve(&self, cpus: &BTreeSet<u32>) -> Result<(), StorageFault> {
        if self.reserved() == *cpus {
            return Ok(());
        }
        let part = files::part(&self.file);
        let text = serde_json::to_vec(cpus).unwrap_or_default();
        fs::write(&part, text).await.map_err(StorageFault::file("cannot write", &part))?;
        files::put_in_place(&part, &self.file).await?;
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner).clone_from(cpus);
        Ok(())
    }
}

impl Inner {
    /// The CPUs that no server gets are these from now on.
    pub(super) async fn reserve_cpus(&self, cpus: &BTreeSet<u32>) -> Result<(), DriverFault> {
        self.cpus.reserve(cpus).await?;
        self.spread().await
    }

    /// What a server has while an order is carried out.
    pub(super) fn cpus_during(work: &Work<'_>, order: &Order) -> Result<Cpus, DriverFault> {
        let here = Cpus::of(&work.home.placement.holding);
        Ok(match order {
            Order::Receive {} => Cpus::of(&moving(work.home)?.to.holding),
            Order::Resize { placement, .. } => {
                let then = Cpus::of(&placement.holding);
                Cpus { own: &here.own | &then.own, ..then }
            }
            _ => here,
        })
    }

    /// What it has after one that was carried out.
    pub(super) async fn cpus_after(
        &self,
        work: &Work<'_>,
        order: &Order,
    ) -> Result<(), DriverFault> {
        if let Order::Resize { placement, .. } = order
            && let Some(record) = self.records.read(work.server).await?
        {
            let cpus = Some(Cpus::of(&placement.holding));
            self.records.write(work.server, &Record { cpus, ..record }).await?;
        }
        Ok(())
    }

    /// Everybody leaves the CPUs that are a server's own, before it runs on them.
    pub(super) async fn clear_cpus(&self, server: Uuid) -> Result<(), DriverFault> {
        let record = self.records.read(server).await?.unwrap_or_default();
        self.look_again(server).await?;
        if record.cpus.is_none_or(|cpus| cpus.own.is_empty()) {
            return Ok(());
        }
        self.step(Step::Spread, server, self.spread()).await
    }

    /// What an order has changed of the CPUs that are shared is told to those who share them. It is looked at
    /// again before long where that does not go.
    pub(super) async fn spread_after(&self, server: Uuid) {
        let spread = async {
            self.look_again(server).await?;
            self.spread().await
        };
        if let Err(fault) = spread.await {
            tracing::warn!(%fault, %server, "servers may run on CPUs that are not shared");
        }
    }

    /// What is written down of a server is read again, and its machine looked at again.
    pub(super) async fn look_again(&self, server: Uuid) -> Result<(), DriverFault> {
        let of = self.records.read(server).await?.as_ref().and_then(Of::read);
        let mut held = self.held().await?;
        let Some(held) = held.as_mut() else { return Ok(()) };
        held.told.remove(&server);
        match of {
            Some(of) => drop(held.servers.insert(server, of)),
            None => drop(held.servers.remove(&server)),
        }
        Ok(())
    }

    async fn held(&self) -> Result<tokio::sync::MutexGuard<'_, Option<Held>>, DriverFault> {
        let mut held = self.cpus.held.lock().await;
        if held.is_none() {
            let mut servers = BTreeMap::new();
            for (server, record) in self.records.all().await? {
                let of = match Of::read(&record) {
                    Some(of) => of,
                    // By an agent that did not write it down.
                    None => Of {
                        cpus: self.told_before(server, &record).await?,
                        adopted: record.adopted,
                    },
                };
                servers.insert(server, of);
            }
            *held = Some(Held { servers, stale: true, told: BTreeMap::new() });
        }
        Ok(held)
    }

    async fn told_before(&self, server: Uuid, record: &Record) -> Result<Cpus, DriverFault> {
        if record.adopted {
            return Ok(Cpus::default());
        }
        let wire = self.wire.get().await?;
        let Some(domain) = super::find(&wire, server).await? else { return Ok(Cpus::default()) };
        Ok(Cpus::told(&described(&wire, &domain, Affects::Config).await?))
    }

    async fn shared(&self, held: &Held) -> Result<Shared, DriverFault> {
        let tree = Tree::at(&self.options.kernel);
        let read = tokio::task::spawn_blocking(move || topology::cpus(&tree)).await;
        let cells = read.map_err(|error| DriverFault::Unexpected(error.to_string()))??;
        Ok(Shared::new(cells, &held.own(), &self.cpus.reserved()))
    }

    /// Writes into a server's machine where it runs, when it shares CPUs.
    pub(super) async fn bind_shared(
        &self,
        machine: &mut Description,
        holding: &Holding,
    ) -> Result<(), DriverFault> {
        if !holding.shares_cpus() {
            return Ok(());
        }
        let held = self.held().await?;
        let Some(held) = held.as_ref() else { return Ok(()) };
        let cpus = Cpus::of(holding);
        if cpus.is_free() && held.own().is_empty() && self.cpus.reserved().is_empty() {
            return Ok(());
        }
        self.shared(held).await?.bind(machine, &cpus);
        Ok(())
    }

    /// Everybody who shares CPUs runs on those that are shared.
    pub(super) async fn spread(&self) -> Result<(), DriverFault> {
        let mut held = self.held().await?;
        let Some(held) = held.as_mut() else { return Ok(()) };
        let free =
            self.cpus.reserved().is_empty() && held.servers.values().all(|of| of.cpus.is_free());
        if free && !held.stale {
            return Ok(());
        }
        let shared = self.shared(held).await?;
        let wire = self.wire.get().await?;
        let runs: BTreeMap<Uuid, Domain> = wire
            .domains()
            .await
            .map_err(libvirt)?
            .into_iter()
            .map(|domain| (domain.uuid, domain))
            .collect();
        for (server, of) in &held.servers {
            let machine = runs.get(server).and_then(|domain| Some((domain, domain.id?)));
            let Some((domain, id)) = machine.filter(|_| of.cpus.own.is_empty()) else {
                held.told.remove(server);
                continue;
            };
            if held.told.get(server).is_some_and(|told| (told.0, &told.1) == (id, &shared)) {
                continue;
            }
            if self.is_on_its_way(&wire, domain).await? {
                held.told.remove(server);
                continue;
            }
            match tell(&wire, domain, of, &shared).await {
                Ok((wanted, now)) if wanted == now => {
                    held.told.insert(*server, (id, shared.clone()));
                }
                Ok((wanted, now)) => {
                    let why = format!("{}: {wanted:?} was told, and it is {now:?}", domain.name);
                    return Err(DriverFault::Transient(why));
                }
                // It ended meanwhile.
                Err(fault) if fault.is(Code::NO_DOMAIN) || fault.is(Code::OPERATION_INVALID) => {
                    held.told.remove(server);
                }
                Err(fault) => return Err(libvirt(fault)),
            }
        }
        // From now on nobody is kept to anything, or everybody was told.
        held.stale = !free;
        if free {
            held.told.clear();
        }
        Ok(())
    }
}

/// `VIR_DOMAIN_PAUSED_MIGRATION`: it waits for the rest of its memory.
const HELD_FOR_MEMORY: i32 = 2;

impl Inner {
    /// Whether a server is sent to another host at the moment, or comes from one: libvirt keeps everybody waiting who
    /// wants something of it then. It is told where it has arrived, or when it has stayed.
    async fn is_on_its_way(&self, wire: &Connection, domain: &Domain) -> Result<bool, DriverFault> {
        if self.sending.at_once(domain.uuid).is_none() {
            return Ok(true);
        }
        match wire.state(domain).await {
            Ok((is, reason)) => Ok(is == State::Paused && reason == HELD_FOR_MEMORY),
            Err(fault) if fault.is(Code::NO_DOMAIN) => Ok(true),
            Err(fault) => Err(libvirt(fault)),
        }
    }
}

/// A server that runs is told where. Gives where it was to run, and where it says that it does.
async fn tell(
    wire: &Connection,
    domain: &Domain,
    of: &Of,
    shared: &Shared,
) -> Result<(Spread, Spread), Fault> {
    let read = async |affects| {
        let xml = wire.xml(domain, affects).await?;
        Description::read(&xml).map_err(|_| Fault::Malformed("a domain's description"))
    };
    let is = read(Affects::Live).await?;
    let wanted = if of.adopted {
        shared.spread_within(&read(Affects::Config).await?, is.vcpus)
    } else {
        shared.spread(&of.cpus, is.vcpus)
    };
    let now = shared.now(&is);
    if now == wanted {
        return Ok((wanted, now));
    }
    let list = |cpus: &BTreeSet<u32>| cpus.iter().copied().collect::<Vec<_>>();
    for (vcpu, (cpus, now)) in (0..).zip(wanted.vcpus.iter().zip(&now.vcpus)) {
        if now != cpus {
            wire.pin(domain, vcpu, &list(cpus), Affects::Live).await?;
        }
    }
    if now.rest != wanted.rest {
        wire.pin_emulator(domain, &list(&wanted.rest), Affects::Live).await?;
    }
    let now = shared.now(&read(Affects::Live).await?);
    Ok((wanted, now))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(cpus: &[u32]) -> BTreeSet<u32> {
        cpus.iter().copied().collect()
    }

    /// Two cells of four CPUs.
    fn shared(own: &[u32], reserved: &[u32]) -> Shared {
        let cells = [(0, set(&[0, 1, 2, 3])), (1, set(&[4, 5, 6, 7]))];
        Shared::new(cells.into(), &set(own), &set(reserved))
    }

    fn machine(vcpus: u32) -> Description {
        Description::new("web", Uuid::nil(), 1 << 20, vcpus)
    }

    #[test]
    fn who_shares_runs_neither_on_what_is_somebodys_nor_on_what_is_kept() {
        let free = Cpus::default();
        let spread = shared(&[1, 5], &[0]).spread(&free, 2);
        let wanted = set(&[2, 3, 4, 6, 7]);
        assert_eq!(spread, Spread { vcpus: vec![wanted.clone(), wanted.clone()], rest: wanted });
        // Settings that came later leave nobody without a place.
        assert_eq!(shared(&[0, 1, 2, 3], &[4, 5, 6, 7]).open, set(&[4, 5, 6, 7]));
        assert_eq!(shared(&[0, 1, 2, 3, 4, 5, 6, 7], &[]).open, set(&[0, 1, 2, 3, 4, 5, 6, 7]));
    }

    #[test]
    fn who_is_bound_to_cells_runs_on_what_is_shared_of_them() {
        let cpus = Cpus { own: BTreeSet::new(), cells: vec![(0, 1), (1, 2)] };
        let own = shared(&[1, 5], &[0]);
        let spread = own.spread(&cpus, 4);
        let (first, second, all) = (set(&[2, 3]), set(&[4, 6, 7]), set(&[2, 3, 4, 6, 7]));
        // The fourth was given no cell.
        assert_eq!(spread.vcpus, [first, second.clone(), second, all.clone()]);
        assert_eq!(spread.rest, all);
        // A cell that has none left, and one that is not there.
        let spread = shared(&[0, 1, 2, 3], &[]).spread(&cpus, 1);
        assert_eq!(spread.vcpus, [set(&[4, 5, 6, 7])]);
        let gone = Cpus { own: BTreeSet::new(), cells: vec![(9, 1)] };
        assert_eq!(shared(&[0], &[]).spread(&gone, 1).vcpus, [set(&[1, 2, 3, 4, 5, 6, 7])]);
    }

    #[test]
    fn an_adopted_one_keeps_to_its_own_as_far_as_that_is_shared() {
        let mut is = machine(3);
        is.pins = [(0, vec![0, 1]), (1, vec![1])].into();
        is.emulator_pins = vec![6, 7];
        let spread = shared(&[1], &[7]).spread_within(&is, 3);
        assert_eq!(spread.vcpus, [set(&[0]), set(&[1]), set(&[0, 2, 3, 4, 5, 6])]);
        assert_eq!(spread.rest, set(&[6]));
    }

    #[test]
    fn a_definition_says_where_only_when_that_is_not_everywhere() {
        let mut is = machine(1);
        is.vcpus_max = 2;
        shared(&[], &[]).bind(&mut is, &Cpus::default());
        assert!(is.pins.is_empty() && is.emulator_pins.is_empty());
        Shared::new(BTreeMap::new(), &set(&[0]), &set(&[])).bind(&mut is, &Cpus::default());
        assert!(is.pins.is_empty() && is.emulator_pins.is_empty());
        shared(&[0], &[]).bind(&mut is, &Cpus::default());
        let rest = vec![1, 2, 3, 4, 5, 6, 7];
        assert_eq!(is.pins, [(0, rest.clone()), (1, rest.clone())].into());
        assert_eq!(is.emulator_pins, rest);
        // What it runs on is read as what it was told, and what it was not told is everywhere.
        let own = shared(&[0], &[]);
        assert_eq!(own.now(&is), own.spread(&Cpus::default(), 1));
        assert_eq!(own.now(&machine(1)).rest, own.all);
    }

    #[test]
    fn what_an_older_agent_did_not_write_down_is_read_from_the_definition() {
        let mut is = machine(2);
        is.pins = [(0, vec![2]), (1, vec![3])].into();
        is.emulator_pins = vec![2, 3, 7];
        assert_eq!(Cpus::told(&is), Cpus { own: set(&[2, 3, 7]), cells: Vec::new() });
    }
}
