//! What a place promises, on the machine itself: processors, huge pages, firmware.

use std::{fs, io::Write as _, path::PathBuf};

use adapters_kvm::driver::Census;
use domain::compute::server::{Order, Power};
use serde_json::json;
use uuid::Uuid;

use crate::host::{Guest, Host};

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

#[tokio::test]
async fn a_server_runs_on_the_processors_and_in_the_pages_that_its_place_has() {
    let Some(host) = Host::of_tests().await else { return };
    let Some(_pages) = HugePages::more(56) else { return };
    let driver = host.driver().await;
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
