//! A cloud that outlives its process.

use std::{sync::Arc, time::Duration};

use adapters_sim::{Population, SimCloud};
use commands::{ports::Provider, testing::TestClock};
use domain::mapping::Order;
use serde_json::json;

use crate::{ACCOUNT, REGION, access, group_task, seen, spec};

const ALL: Population = Population { seed: 1, regions: 1, resources: 100 };

#[tokio::test]
async fn another_process_on_the_same_file_sees_every_change_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cloud.json");
    let open = || SimCloud::open(&path, Arc::new(TestClock::default())).unwrap();
    let (one, two) = (open(), open());
    one.populate(ACCOUNT, "s", ALL).unwrap();
    // The second finds the account there and leaves it as it is.
    two.populate(ACCOUNT, "other", ALL).unwrap();
    let wanted = spec("web", &[json!({"ports": "443"})]);
    let create = group_task(1, "", &Order::Create { spec: wanted.clone() });
    let made = one.carry_out(&access(ACCOUNT, "s"), &create).await.unwrap();
    let found = two.carry_out(&access(ACCOUNT, "s"), &create).await.unwrap();
    assert_eq!(made, found);
    assert_eq!(seen(&found), wanted);
    let id = made.body["external_id"].as_str().unwrap();
    two.console(ACCOUNT, "ann").rename(REGION, "security-group", id, "front").unwrap();
    assert_eq!(one.console(ACCOUNT, "ann").group(REGION, id).unwrap().name, "front");
    // Killed and started again.
    drop((one, two));
    assert_eq!(open().console(ACCOUNT, "ann").group(REGION, id).unwrap().name, "front");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "only the file and its lock");
}

#[tokio::test]
async fn two_processes_that_change_at_once_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cloud.json");
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let path = path.clone();
            std::thread::spawn(move || {
                let cloud = SimCloud::open(&path, Arc::new(TestClock::default())).unwrap();
                cloud.populate(ACCOUNT, "s", ALL).unwrap();
                let console = cloud.console(ACCOUNT, "ann");
                for number in 0..25 {
                    let group = spec(&format!("{thread}-{number}"), &[]);
                    console.create(REGION, adapters_sim::Body::SecurityGroup(group)).unwrap();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let cloud = SimCloud::open(&path, Arc::new(TestClock::default())).unwrap();
    let groups = cloud.console(ACCOUNT, "ann").ids(REGION, "security-group").unwrap();
    assert_eq!(groups.len(), 9 + 100);
}

#[tokio::test]
async fn a_cloud_is_written_and_read_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cloud.json");
    let cloud = SimCloud::new(Arc::new(TestClock::default()));
    cloud.populate(ACCOUNT, "s", ALL).unwrap();
    cloud.set_latency(Duration::from_millis(5)).unwrap();
    let console = cloud.console(ACCOUNT, "ann");
    let gone = console.ids(REGION, "disk").unwrap().remove(0);
    console.delete(REGION, "disk", &gone).unwrap();
    cloud.save(&path).unwrap();
    let clock = Arc::new(TestClock::default());
    let again = SimCloud::load(&path, Arc::clone(&clock) as Arc<_>).unwrap();
    let before = commands::ports::Clock::now(&*clock);
    let page = again.list(&access(ACCOUNT, "s"), Some(REGION), "disk", None).await.unwrap();
    assert!(page.sightings.iter().all(|one| one.external_id != gone));
    assert_eq!((commands::ports::Clock::now(&*clock) - before).num_milliseconds(), 5);
    again.console(ACCOUNT, "ann").resurrect(REGION, "disk", &gone).unwrap();
}
