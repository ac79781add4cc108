//! The guide of backups from outside: a store on a stand-in for S3, a backup and a snapshot of a disk, and
//! disks made from both, by their names.

use std::time::{Duration, Instant};

use adapters_clouds::testing::Hand;
use serde_json::json;

use super::{
    agent::{awaited, launch},
    server::{Server, Store, aws},
};

const PATIENCE: Duration = Duration::from_mins(1);

#[test]
fn a_disk_is_backed_up_and_restored_as_the_guide_says() {
    let folder = tempfile::tempdir().unwrap();
    let more = ["--local-host", "here", "--simulated"];
    let server = Server::start_with(folder.path(), &Store::Embedded, &more);
    let until = Instant::now() + PATIENCE;
    while server.json(&["get", "host", "here"])["status"] != "ready" {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(50));
    }
    launch(&server, "web");
    awaited(&server, "web", "running");

    let (aws, _turn) = aws();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let made = runtime.block_on(Hand::new(&aws).object("PUT", "guide", Vec::new())).unwrap();
    assert_eq!(made.status, 200, "{made:?}");
    let vault = folder.path().join("vault.yaml");
    let text = format!(
        "name: vault\nplace: {{endpoint: \"{aws}\", bucket: guide, prefix: skyledger/}}\n\
         credential: {{access_key_id: AKIASKYLEDGERTEST00, secret_access_key: x}}\n"
    );
    std::fs::write(&vault, text).unwrap();
    let done = |words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        let ran = server.run(&words);
        assert_eq!(ran.code, 0, "{words:?}: {}{}", ran.out, ran.err);
    };
    done(&format!("create backup-store --wait -f {}", vault.display()));
    done("create backup --wait --set name=monday --set disk=web-0 --set store=vault");
    done(
        "create backup --wait --set name=tuesday --set disk=web-0 --set store=vault \
         --set parent=monday",
    );
    done("create disk --wait --set name=restored --set server=web --set from.backup=tuesday");
    done("create snapshot --wait --set name=before --set disk=web-0");
    let running = server.run(&["do", "snapshot", "roll-back", "before"]);
    assert_eq!(running.code, 5, "{}{}", running.out, running.err);
    done("stop web --wait");
    done("do snapshot roll-back before --wait");
    done("create disk --wait --set name=copy --set server=web --set from.snapshot=before");
    done("do snapshot delete before --wait");
    // A plan says by names what it is about, and is run by hand before its time.
    let plan = folder.path().join("nightly.yaml");
    let text = "name: nightly\nterms:\n  servers: [web]\n  disks: [restored]\n  store: vault\n  \
                times: {hours: [2], minute: 30}\n  keep: {last: 1}\n  full_every: 2\n";
    std::fs::write(&plan, text).unwrap();
    done(&format!("create backup-plan -f {}", plan.display()));
    done("do backup-plan run nightly --wait");
    done("do backup-plan run nightly --wait");
    let plan = server.json(&["get", "backup-plan", "nightly"]);
    let last = &plan["state"]["last_run"];
    assert_eq!((&plan["status"], &last["problems"]), (&json!("active"), &json!(0)), "{plan}");
    let results = last["results"].as_array().unwrap();
    assert_eq!(results.len(), 3, "the disks of the server, one of them named twice: {plan}");
    assert!(results.iter().all(|ran| ran["kept"] == 1 && ran["full"] == false), "{plan}");
    done("do backup-plan retire nightly");
    for ran in results {
        done(&format!("do backup delete {} --wait", ran["backup"].as_str().unwrap()));
    }
    // Those that the plan has deleted go by themselves.
    let until = Instant::now() + PATIENCE;
    while server.json(&["get", "backups"]).as_array().unwrap().len() > 2 {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(50));
    }
    for name in ["tuesday", "monday"] {
        done(&format!("do backup delete {name} --wait"));
    }
    done("do backup-store collect vault --wait");
    let store = server.json(&["get", "backup-store", "vault"]);
    assert_eq!(store["status"], "ready");
    assert!(store["state"]["credential"].is_null(), "keys are not shown: {store}");
    done("do backup-store retire vault");
    // What a wrong key comes to, told in words.
    let wrong = server.run(&[
        "create",
        "backup-store",
        "--set",
        "name=x",
        "--set",
        "place.bucket=guide",
        "--set",
        "credential.access_key_id=a",
    ]);
    assert_eq!(wrong.code, 3, "{}{}", wrong.out, wrong.err);
    assert!(wrong.err.contains("secret_access_key"), "{}", wrong.err);
    assert_eq!(server.stop(), 0);
}
