//! Cells, cores, caches and huge pages of a host.
//!
//! CPUs that are offline are left out. A kernel without NUMA shows one cell, whose memory is that of
//! the machine. A cell may have no CPUs (memory that was added behind a link) or no memory (empty
//! slots): both are cells. Nothing is cut to what placement takes: a host that is too large is
//! refused by [`HostFacts::check`](domain::compute::placement::HostFacts::check), in words.

use std::collections::{BTreeMap, BTreeSet};

use domain::compute::placement::{Architecture, Cell, Core, Pages};

use super::{ObserveFault, Tree, tree::nonsense};

const NODES: &str = "sys/devices/system/node";
const CPUS: &str = "sys/devices/system/cpu";

/// What the kernel says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// The machine, as the kernel calls it, for instance `x86_64`.
    pub machine: String,
    /// CPUs that are there and off.
    pub offline: BTreeSet<u32>,
    /// Its CPUs that are on.
    pub cpus: BTreeMap<u32, Cpu>,
    /// Its cells, by number.
    pub nodes: BTreeMap<u32, Node>,
}

/// One logical CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// The CPUs of its core, itself among them.
    pub siblings: BTreeSet<u32>,
    /// Its third-level cache, where it has one.
    pub l3: Option<Cache>,
}

/// A cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// The kernel's number of it, where it has numbers.
    pub id: Option<u32>,
    /// The CPUs that share it.
    pub cpus: BTreeSet<u32>,
}

/// One cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its CPUs, offline ones perhaps among them.
    pub cpus: BTreeSet<u32>,
    /// All its memory.
    pub memory_kib: u64,
    /// Its huge pages: how many of each size in KiB.
    pub pages: BTreeMap<u32, u64>,
    /// How many of them somebody has.
    pub taken: BTreeMap<u32, u64>,
    /// How far every cell is, in their order.
    pub distances: Vec<u32>,
}

/// Reads it.
///
/// # Errors
/// When a file that is there cannot be read, or says what the kernel never says.
pub fn read(tree: &Tree) -> Result<Topology, ObserveFault> {
    let list = |name: &str| tree.cpus(&format!("{CPUS}/{name}"));
    let online = list("online")?.unwrap_or_default();
    let present = list("present")?.unwrap_or_default();
    let mut cpus = BTreeMap::new();
    for cpu in &online {
        cpus.insert(*cpu, read_cpu(tree, *cpu)?);
    }
    let mut nodes = BTreeMap::new();
    for name in tree.names(NODES)? {
        if let Some(id) = name.strip_prefix("node").and_then(|id| id.parse().ok()) {
            nodes.insert(id, read_node(tree, &format!("{NODES}/{name}"))?);
        }
    }
    if nodes.is_empty() {
        let node = Node {
            cpus: online.clone(),
            memory_kib: memory(tree, "proc/meminfo", 0)?,
            pages: pages(tree, "sys/kernel/mm/hugepages")?,
            taken: taken(tree, "sys/kernel/mm/hugepages")?,
            distances: vec![10],
        };
        nodes.insert(0, node);
    }
    let machine = tree.text("proc/sys/kernel/arch")?;
    // Kernels before 6.1 do not say; but this program runs on it.
    let machine = machine.unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    Ok(Topology { machine, offline: &present - &online, cpus, nodes })
}

/// The CPUs that are on, by the cell that they are in: less to read than all of it.
///
/// # Errors
/// As [`read`].
pub fn cpus(tree: &Tree) -> Result<BTreeMap<u32, BTreeSet<u32>>, ObserveFault> {
    let online = tree.cpus(&format!("{CPUS}/online"))?.unwrap_or_default();
    let mut cells = BTreeMap::new();
    for name in tree.names(NODES)? {
        if let Some(id) = name.strip_prefix("node").and_then(|id| id.parse().ok()) {
            let all = tree.cpus(&format!("{NODES}/{name}/cpulist"))?.unwrap_or_default();
            cells.insert(id, &all & &online);
        }
    }
    if cells.is_empty() {
        cells.insert(0, online);
    }
    Ok(cells)
}

fn read_cpu(tree: &Tree, cpu: u32) -> Result<Cpu, ObserveFault> {
    let folder = format!("{CPUS}/cpu{cpu}");
    let mut siblings = tree.cpus(&format!("{folder}/topology/core_cpus_list"))?;
    if siblings.is_none() {
        // What kernels before 5.3 call it.
        siblings = tree.cpus(&format!("{folder}/topology/thread_siblings_list"))?;
    }
    let mut siblings = siblings.unwrap_or_default();
    siblings.insert(cpu);
    let mut l3 = None;
    for index in tree.names(&format!("{folder}/cache"))? {
        let at = format!("{folder}/cache/{index}");
        if tree.number::<u32>(&format!("{at}/level"))? == Some(3) {
            let mut cpus = tree.cpus(&format!("{at}/shared_cpu_list"))?.unwrap_or_default();
            cpus.insert(cpu);
            l3 = Some(Cache { id: tree.number(&format!("{at}/id"))?, cpus });
        }
    }
    Ok(Cpu { siblings, l3 })
}

fn read_node(tree: &Tree, folder: &str) -> Result<Node, ObserveFault> {
    let path = format!("{folder}/distance");
    let text = tree.text(&path)?.unwrap_or_default();
    let distances = text.split_whitespace().map(str::parse).collect::<Result<_, _>>();
    Ok(Node {
        cpus: tree.cpus(&format!("{folder}/cpulist"))?.unwrap_or_default(),
        memory_kib: memory(tree, &format!("{folder}/meminfo"), 2)?,
        pages: pages(tree, &format!("{folder}/hugepages"))?,
        taken: taken(tree, &format!("{folder}/hugepages"))?,
        distances: distances.map_err(|_| nonsense(&path, &text))?,
    })
}

/// `MemTotal` of a file, where it comes after some words (`Node 0`); nothing when it is not there.
fn memory(tree: &Tree, path: &str, words: usize) -> Result<u64, ObserveFault> {
    let text = tree.text(path)?.unwrap_or_default();
    let mut lines = text.lines().map(|line| line.split_whitespace().skip(words));
    let total = lines.find_map(|mut line| (line.next()? == "MemTotal:").then(|| line.next())?);
    total.map_or(Ok(0), |kib| kib.parse().map_err(|_| nonsense(path, kib)))
}

fn pages(tree: &Tree, folder: &str) -> Result<BTreeMap<u32, u64>, ObserveFault> {
    counted(tree, folder, "nr_hugepages")
}

/// Those that are not free; where the kernel does not say what is, all are.
fn taken(tree: &Tree, folder: &str) -> Result<BTreeMap<u32, u64>, ObserveFault> {
    let free = counted(tree, folder, "free_hugepages")?;
    let taken = pages(tree, folder)?.into_iter().filter_map(|(size, count)| {
        let taken = count.saturating_sub(*free.get(&size)?);
        (taken > 0).then_some((size, taken))
    });
    Ok(taken.collect())
}

fn counted(tree: &Tree, folder: &str, what: &str) -> Result<BTreeMap<u32, u64>, ObserveFault> {
    let mut pages = BTreeMap::new();
    for name in tree.names(folder)? {
        let size = name.strip_prefix("hugepages-").and_then(|name| name.strip_suffix("kB"));
        let Some(size) = size.and_then(|size| size.parse().ok()) else { continue };
        if let Some(count) = tree.number(&format!("{folder}/{name}/{what}"))? {
            pages.insert(size, count);
        }
    }
    Ok(pages)
}

impl Topology {
    /// The instruction set.
    ///
    /// # Errors
    /// When no servers are known to run on such a machine.
    pub fn architecture(&self) -> Result<Architecture, ObserveFault> {
        Ok(match self.machine.as_str() {
            "aarch64" => Architecture::Aarch64,
            "loongarch64" => Architecture::Loongarch64,
            // As this program was built for it, the second.
            "ppc64le" => Architecture::Ppc64le,
            "powerpc64" if cfg!(target_endian = "little") => Architecture::Ppc64le,
            "riscv64" => Architecture::Riscv64,
            "s390x" => Architecture::S390x,
            "x86_64" => Architecture::X86_64,
            other => return Err(nonsense("proc/sys/kernel/arch", other)),
        })
    }

    /// Huge pages that somebody has, our servers among them, by cell and size in KiB.
    pub fn taken(&self) -> BTreeMap<(u32, u32), u64> {
        let of = |(id, node): (&u32, &Node)| {
            let id = *id;
            node.taken.clone().into_iter().map(move |(size_kib, count)| ((id, size_kib), count))
        };
        self.nodes.iter().flat_map(of).collect()
    }

    /// Its cells, as placement takes them. Who has their pages is not known from the kernel.
    pub fn cells(&self) -> Vec<Cell> {
        let caches = self.caches();
        let cell = |(id, node): (&u32, &Node)| Cell {
            id: *id,
            memory_mib: node.memory_kib / 1_024,
            memory_reserved_mib: 0,
            pages: node
                .pages
                .iter()
                .map(|(size_kib, count)| Pages { size_kib: *size_kib, count: *count, others: 0 })
                .collect(),
            cores: self.cores(&node.cpus, &caches),
            // One that says something else is as good as none.
            distances: Some(&node.distances)
                .filter(|distances| distances.len() == self.nodes.len())
                .cloned()
                .unwrap_or_default(),
        };
        self.nodes.iter().map(cell).collect()
    }

    /// The cores of some CPUs, sorted by their first thread. A thread that the firmware puts into
    /// another cell than its sibling is a core there.
    fn cores(&self, of: &BTreeSet<u32>, caches: &BTreeMap<u32, u32>) -> Vec<Core> {
        let mut left: BTreeSet<u32> =
            of.iter().filter(|cpu| self.cpus.contains_key(cpu)).copied().collect();
        let mut cores = Vec::new();
        while let Some(first) = left.pop_first() {
            let siblings = self.cpus.get(&first).map(|cpu| &cpu.siblings);
            let others = siblings.into_iter().flatten().filter(|cpu| left.remove(cpu));
            let threads: Vec<u32> = std::iter::once(first).chain(others.copied()).collect();
            cores.push(Core { threads, l3: caches.get(&first).copied() });
        }
        cores
    }

    /// The number of each CPU's third-level cache: the kernel's, or where it has none (or one for
    /// two caches, as some virtual machines say) the first CPU that shares it.
    fn caches(&self) -> BTreeMap<u32, u32> {
        let all = || self.cpus.iter().filter_map(|(cpu, it)| Some((*cpu, it.l3.as_ref()?)));
        let sharing: BTreeSet<&BTreeSet<u32>> = all().map(|(_, cache)| &cache.cpus).collect();
        let numbered: BTreeSet<_> = all().map(|(_, cache)| (cache.id, &cache.cpus)).collect();
        let ids: BTreeSet<u32> = all().filter_map(|(_, cache)| cache.id).collect();
        let by_id = ids.len() == sharing.len() && numbered.len() == sharing.len();
        let number = |cache: &Cache| if by_id { cache.id } else { cache.cpus.first().copied() };
        all().filter_map(|(cpu, cache)| Some((cpu, number(cache)?))).collect()
    }
}
