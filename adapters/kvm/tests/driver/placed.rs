//! What a place promises, on the machine itself: processors, huge pages, firmware.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use adapters_kvm::driver::{Census, KvmHost, Side, Step};
use domain::compute::server::{Order, Power};
use serde_json::json;
use uuid::Uuid;

use crate::host::{End, Guest, Host};

/// QEMU's process of a server, as the machine sees it.
pub(crate) fn process(server: Uuid) -> PathBuf {
    let name = format!("guest=sk-{server},");
    let has = |path: &PathBuf| {
        let line = fs::read(path.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&name)
    };
    let all = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    all.into_iter().find(has).expect("a process of the server")
}

/// The processors that a thread of a process may run on, by the thread's name.
pub(crate) fn allowed(process: &std::path::Path, thread: &str) -> String {
    for task in fs::read_dir(process.join("task")).unwrap().flatten() {
        let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
        if read("comm").trim_end().starts_with(thread) {
            let status = read("status");
            let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            return list.unwrap().trim().to_owned();
        }
    }
    panic!("no thread {thread}");
}

/// Huge pages of 2 MiB that the whole machine keeps for who asks for them, as long as this is there.
struct HugePages {
    before: String,
}

impl HugePages {
    const FILE: &'static str = "/proc/sys/vm/nr_hugepages";

    /// None where the machine gives none, which is said.
    fn more(pages: u64) -> Option<Self> {
        let before = fs::read_to_string(Self::FILE).ok()?;
        let now: u64 = before.trim().parse().ok()?;
        let this = Self { before };
        let given = fs::write(Self::FILE, (now + pages).to_string()).is_ok()
            && fs::read_to_string(Self::FILE)
                .is_ok_and(|all| all.trim() == (now + pages).to_string());
        if !given {
            // Past what catches the output of tests that pass.
            let said = writeln!(std::io::stderr(), "LEFT OUT, this machine gives no huge pages");
            said.unwrap();
        }
        given.then_some(this)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        fs::write(Self::FILE, self.before.trim()).expect("as many huge pages as before");
    }
}

/// A program that has so many of them.
struct Holder(Child);

impl Holder {
    fn of(pages: u64) -> Self {
        let bytes = pages << 21;
        let script = format!(
            "mount -t hugetlbfs none /mnt && fallocate -l {bytes} /mnt/held && echo held && read end"
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "held\n");
        Self(child)
    }
}

impl Drop for Holder {
    /// It ends when nobody can say anything to it any more.
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

/// How many pages others than servers have, as the host says.
async fn others(driver: &KvmHost) -> u64 {
    let seen = driver.sighting().await.unwrap();
    seen.cells.iter().flat_map(|cell| &cell.pages).map(|pages| pages.others).sum()
}

#[tokio::test]
async fn a_server_runs_on_the_processors_and_in_the_pages_that_its_place_has() {
    let Some(host) = Host::of_tests().await else { return };
    let Some(_pages) = HugePages::more(56) else { return };
    let driver = host.driver().await;
    let before = others(&driver).await;
    let server = host.launch(50, "lab", "#!/bin/sh\n").with(|home| {
        let holding = &mut home["placement"]["holding"];
        holding["vcpus"] = json!(2);
        holding["page_kib"] = json!(2_048);
        holding["cells"] = json!([{"cell": 0, "vcpus": 2, "memory_mib": 96, "pages": 48}]);
        holding["pins"] = json!([{"vcpu": 0, "cpu": 1}, {"vcpu": 1, "cpu": 0}]);
        holding["cpus"] = json!([0, 1]);
        home["spec"]["vcpus"] = json!(2);
    });
    let machine = server.done(&driver, 1, Order::Launch {}).await;
    assert_eq!((machine.power, machine.shape.as_str()), (Power::Running, "2x96"));
    let guest = Guest::ready(&host, server.id).await;
    assert_eq!(guest.run("nproc; ls -d /sys/devices/system/node/node*").await.lines().count(), 2);

    let process = process(server.id);
    assert_eq!(allowed(&process, "CPU 0/"), "1");
    assert_eq!(allowed(&process, "CPU 1/"), "0");
    let maps = fs::read_to_string(process.join("numa_maps")).unwrap();
    let memory = maps.lines().find(|line| line.contains("huge") && line.contains("bind:0"));
    let memory = memory.unwrap_or_else(|| panic!("no memory in huge pages of cell 0:\n{maps}"));
    assert!(memory.contains("N0=48") && memory.contains("kernelpagesize_kB=2048"), "{memory}");

    // What it has is its own; what somebody else has is not free for servers.
    assert_eq!(others(&driver).await, before);
    let holder = Holder::of(3);
    assert_eq!(others(&driver).await, before + 3);
    drop(holder);
    assert_eq!(others(&driver).await, before);

    server.removed(&driver, 2).await;
    assert_eq!(driver.census().await.unwrap(), Census::default());
}

#[tokio::test]
async fn a_machine_has_the_threads_that_its_place_says() {
    let Some(host) = Host::of_tests().await else { return };
    let driver = host.driver().await;
    // As if the processors of this machine were threads of one core: that is what its place says.
    let server = host.launch(52, "lab", "#!/bin/sh\n").with(|home| {
        let holding = &mut home["placement"]["holding"];
        holding["vcpus"] = json!(2);
        holding["pins"] = json!([{"vcpu": 0, "cpu": 0}, {"vcpu": 1, "cpu": 1}]);
        holding["cpus"] = json!([0, 1]);
        holding["threads"] = json!(2);
        home["spec"]["vcpus"] = json!(2);
    });
    let machine = server.done(&driver, 1, Order::Launch {}).await;
    assert_eq!((machine.power, machine.shape.as_str()), (Power::Running, "2x96"));
    let guest = Guest::ready(&host, server.id).await;
    // QEMU without KVM is an AMD without what such a guest learns of threads by (topoext), so it is asked for no more
    // than what it is told by all: that both are in one socket.
    let socket = "cat /sys/devices/system/cpu/cpu[01]/topology/physical_package_id";
    assert_eq!(guest.run(socket).await, "0\n0");
    let line = fs::read(process(server.id).join("cmdline")).unwrap();
    let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let at = words.iter().position(|word| word == "-smp").expect("QEMU is told");
    for said in ["sockets=1", "cores=1", "threads=2"] {
        assert!(words[at + 1].split(',').any(|word| word == said), "{said}: {}", words[at + 1]);
    }
    server.removed(&driver, 2).await;
    assert_eq!(driver.census().await.unwrap(), Census::default());
}

#[tokio::test]
async fn a_server_starts_by_uefi_and_leaves_nothing_of_what_it_remembers() {
    let Some(host) = Host::of_tests().await else { return };
    let driver = host.driver().await;
    let server = host.launch(51, "lab", "#!/bin/sh\n").with(|home| {
        home["parts"]["firmware"] = json!("uefi");
        home["placement"]["holding"]["memory_mib"] = json!(256);
        home["spec"]["memory_mib"] = json!(256);
    });
    server.done(&driver, 1, Order::Launch {}).await;
    let guest = Guest::ready(&host, server.id).await;
    assert_eq!(guest.run("[ -d /sys/firmware/efi ] && echo yes").await, "yes");
    let open = |process: PathBuf| {
        let links = fs::read_dir(process.join("fd")).unwrap().flatten();
        let files = links.filter_map(|link| fs::read_link(link.path()).ok());
        files.filter(|file| file.display().to_string().contains("VARS")).count()
    };
    assert_eq!(open(process(server.id)), 1, "its variables are its own");

    server.done(&driver, 2, Order::Stop {}).await;
    server.done(&driver, 3, Order::Start {}).await;
    Guest::ready(&host, server.id).await;
    server.removed(&driver, 4).await;
    assert_eq!(driver.census().await.unwrap(), Census::default());
}

/// The logical CPUs of this machine.
fn machine_cpus() -> Vec<u32> {
    let list = fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        from.parse::<u32>().unwrap()..=to.parse().unwrap()
    };
    list.trim().split(',').flat_map(range).collect()
}

/// CPUs as the kernel writes them.
fn listed(cpus: &[u32]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for cpu in cpus {
        match runs.last_mut() {
            Some((_, to)) if *to + 1 == *cpu => *to = *cpu,
            _ => runs.push((*cpu, *cpu)),
        }
    }
    let run = |(from, to): (u32, u32)| {
        if from == to { from.to_string() } else { format!("{from}-{to}") }
    };
    runs.into_iter().map(run).collect::<Vec<_>>().join(",")
}

#[tokio::test]
async fn who_shares_processors_leaves_those_that_are_another_s_or_kept_from_servers() {
    let Some(mut host) = Host::of_tests().await else { return };
    // Nobody waits for a guest here.
    host.stop_patience = Duration::from_millis(100);
    let cpus = machine_cpus();
    let [first, second, ..] = cpus[..] else { panic!("this machine has one processor") };
    let without = |gone: u32| {
        let rest: Vec<u32> = cpus.iter().copied().filter(|cpu| *cpu != gone).collect();
        listed(&rest)
    };
    // Its virtual CPU, and everything else that its process does.
    let runs = |server: Uuid| {
        let process = process(server);
        (allowed(&process, "CPU 0/"), allowed(&process, "qemu-system"))
    };
    let on = |cpus: String| (cpus.clone(), cpus);
    let web = host.launch(52, "lab", "#!/bin/sh\n");
    let sums = host.launch(53, "lab", "#!/bin/sh\n").with(|home| {
        let holding = &mut home["placement"]["holding"];
        holding["pins"] = json!([{"vcpu": 0, "cpu": second}]);
        holding["cpus"] = json!([second]);
    });
    let driver = host.driver().await;
    web.done(&driver, 1, Order::Launch {}).await;
    assert_eq!(runs(web.id), on(listed(&cpus)), "nobody has any for itself");
    drop(driver);

    // Wherever its launch ends, nobody else is on its own when it runs.
    let launch = sums.order(1, &Order::Launch {});
    for (end, side) in
        [(End::Fails, Side::Before), (End::Dies, Side::Before), (End::Dies, Side::After)]
    {
        host.cut(end, (Step::Spread, side), &launch).await;
        let left = if side == Side::After { without(second) } else { listed(&cpus) };
        assert_eq!(runs(web.id), on(left), "{end:?} {side:?}");
    }
    let driver = host.driver().await;
    sums.done(&driver, 1, Order::Launch {}).await;
    assert_eq!(runs(sums.id), on(second.to_string()));
    assert_eq!(runs(web.id), on(without(second)));
    // Also in a process that comes later, from its first moment on.
    web.done(&driver, 2, Order::Stop {}).await;
    web.done(&driver, 3, Order::Start {}).await;
    assert_eq!(runs(web.id), on(without(second)));
    let libvirt = host.connect().await;
    let domain = libvirt.domain(web.id).await.unwrap();
    let xml = libvirt.xml(&domain, adapters_libvirt::Affects::Config).await.unwrap();
    let pinned = format!("<emulatorpin cpuset='{}'/>", without(second));
    assert!(xml.contains(&pinned), "{xml}");

    // It has them whether it runs or not, and gives them back with its end.
    sums.done(&driver, 2, Order::Stop {}).await;
    assert_eq!(runs(web.id), on(without(second)));
    sums.removed(&driver, 3).await;
    assert_eq!(runs(web.id), on(listed(&cpus)));

    // What the settings keep from servers; another agent finds it as it was said last.
    driver.reserve_cpus(&BTreeSet::from([first])).await.unwrap();
    assert_eq!(runs(web.id), on(without(first)));
    drop(driver);
    let driver = host.driver().await;
    web.done(&driver, 4, Order::Reboot {}).await;
    assert_eq!(runs(web.id), on(without(first)));
    // Servers come before the host where nothing would be left to them.
    driver.reserve_cpus(&cpus.iter().copied().collect()).await.unwrap();
    assert_eq!(runs(web.id), on(listed(&cpus)));
    driver.reserve_cpus(&BTreeSet::from([first])).await.unwrap();
    drop(driver);
    let driver = host.driver().await;
    driver.reserve_cpus(&BTreeSet::new()).await.unwrap();
    assert_eq!(runs(web.id), on(listed(&cpus)), "also by an agent that did not tell it");
    web.removed(&driver, 5).await;
    assert_eq!(driver.census().await.unwrap(), Census::default());
}
