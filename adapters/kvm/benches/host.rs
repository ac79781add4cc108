//! What the driver of a host costs, beside `virsh` by hand, in turns: a launch beside `virsh define` and
//! `virsh start` of the same machine with its files made before, and a change of a disk's limits beside
//! `virsh blkdeviotune`.
//!
//! ```text
//! cargo bench -p adapters-kvm --bench host
//! cargo bench -p adapters-kvm --bench host -- --rounds=3
//! ```
//!
//! As root; it starts the host of the tests, or uses the one that `SKYLEDGER_TEST_KVM` names.

#![expect(clippy::unwrap_used, reason = "a bench that cannot go on ends")]
#![expect(clippy::float_arithmetic, reason = "a bench divides durations; there is no money in it")]

#[expect(dead_code, reason = "guests are the tests' affair")]
#[path = "../tests/driver/host.rs"]
mod host;

use std::{
    path::PathBuf,
    process::{Command, Output},
    time::{Duration, Instant},
};

use adapters_libvirt::{Affects, Limit, Limits};
use domain::compute::server::{Order, Power};

use host::Host;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rounds = arguments.iter().find_map(|one| one.strip_prefix("--rounds="));
    let rounds = rounds.map_or(15, |text| text.parse().expect("--rounds takes a number"));
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load at the start: {}", load.trim());
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let script = root.join("tests/servers/kvm.sh");
    let cache = root.join("target/test-servers");
    let given = std::env::var("SKYLEDGER_TEST_KVM").ok();
    let folder = given.clone().unwrap_or_else(|| {
        let started = Command::new(&script).arg("start").arg(&cache).output().unwrap();
        said("kvm.sh start", &started)
    });
    tokio::runtime::Runtime::new().unwrap().block_on(measure(folder.into(), rounds));
    if given.is_none() {
        Command::new(&script).arg("stop").arg(&cache).status().unwrap();
    }
}

fn said(what: &str, ran: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    assert!(ran.status.success(), "{what}: {}", text(&ran.stderr));
    text(&ran.stdout)
}

/// `virsh`, and how long it took.
fn virsh(folder: &std::path::Path, words: &[&str]) -> (String, Duration) {
    let uri = format!("qemu+unix:///system?socket={}", folder.join("socket").display());
    let began = Instant::now();
    let ran = Command::new("virsh").args(["-q", "-c", &uri]).args(words).output().unwrap();
    let took = began.elapsed();
    (said(&words.join(" "), &ran), took)
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}

async fn measure(folder: PathBuf, rounds: usize) {
    let host = Host::at(folder.clone());
    let driver = host.driver().await;
    let server = host.launch(30, "lab", "#!/bin/sh\n");
    let name = format!("sk-{}", server.id);
    // Once for nothing: the image comes into the cache.
    server.done(&driver, 1, Order::Launch {}).await;
    server.removed(&driver, 2).await;

    let (mut ours, mut by_hand) = (Vec::new(), Vec::new());
    for round in 0..rounds as u64 {
        let began = Instant::now();
        let machine = server.done(&driver, round * 2 + 3, Order::Launch {}).await;
        ours.push(began.elapsed());
        assert_eq!(machine.power, Power::Running);
        let (xml, _) = virsh(&folder, &["dumpxml", "--inactive", &name]);
        let file = host.data.path().join("by-hand.xml");
        std::fs::write(&file, xml).unwrap();
        virsh(&folder, &["destroy", &name]);
        virsh(&folder, &["undefine", &name]);
        let (_, defined) = virsh(&folder, &["define", file.to_str().unwrap()]);
        let (_, started) = virsh(&folder, &["start", &name]);
        by_hand.push(defined + started);
        server.removed(&driver, round * 2 + 4).await;
    }
    let (ours, by_hand) = (median(&mut ours), median(&mut by_hand));
    println!("launch: {ours:.0} ms, by hand {by_hand:.0} ms, ratio {:.2}", ours / by_hand);

    server.done(&driver, 1_000, Order::Launch {}).await;
    let libvirt = host.connect().await;
    let domain = libvirt.domain(server.id).await.unwrap();
    // A guest that starts takes a processor, and QEMU's attention.
    host::Guest::ready(&host, server.id).await;
    let (mut ours, mut by_hand) = (Vec::new(), Vec::new());
    for round in 0..rounds as u64 * 4 {
        let bytes = (round + 1) << 20;
        let now = libvirt.limits(&domain, "vda", Affects::Live).await.unwrap();
        let limits: Limits = [(Limit::WriteBytes, bytes)].into();
        let began = Instant::now();
        libvirt.change_limits(&domain, "vda", &now, &limits, Affects::Live).await.unwrap();
        ours.push(began.elapsed());
        assert_eq!(libvirt.limits(&domain, "vda", Affects::Live).await.unwrap(), limits);
        let bytes = (bytes + 4_096).to_string();
        let words = ["blkdeviotune", &name, "vda", "--live", "--write-bytes-sec", &bytes];
        by_hand.push(virsh(&folder, &words).1);
    }
    let (ours, by_hand) = (median(&mut ours), median(&mut by_hand));
    let began = Instant::now();
    libvirt.limits(&domain, "vda", Affects::Live).await.unwrap();
    println!("one read of limits: {:.2} ms", began.elapsed().as_secs_f64() * 1e3);
    let began = Instant::now();
    libvirt.state(&domain).await.unwrap();
    println!("one state: {:.2} ms", began.elapsed().as_secs_f64() * 1e3);
    println!("limits: {ours:.2} ms, virsh {by_hand:.1} ms, ratio 1/{:.1}", by_hand / ours);
    server.removed(&driver, 1_001).await;
}
