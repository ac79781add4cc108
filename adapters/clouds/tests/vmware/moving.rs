//! A machine is copied while it writes, stopped, and let be again; the proof is its bytes on both sides.

use adapters_clouds::testing::cloudpods::Broken;
use commands::ports::DriverFault;
use serde_json::{Value, json};

use crate::world::{DATA, MIB, ROOT, World, noise};

#[tokio::test]
async fn a_machine_is_copied_while_it_writes_and_its_last_bytes_come_when_it_is_off() {
    let Some(world) = World::new().await else { return };
    let id = world.machine("web").await;
    world.land();
    assert_eq!(world.copy(&id, 1).await.unwrap().verb, "confirm-copied");
    assert!(world.is_same(&id).await && world.shelf.flushes() >= 2);
    assert_eq!(world.of(&id, "runs").await, true);
    assert_eq!(
        world.of(&id, "snapshots").await,
        1,
        "the last is kept: what is new is told from it"
    );
    // In its first and last block, over a border of blocks, and zeros over what was something.
    world.write(&id, ROOT, 100, noise(3, 50)).await;
    world.write(&id, ROOT, 3 * MIB - 9, noise(4, 9)).await;
    world.write(&id, ROOT, MIB - 1, noise(5, 2)).await;
    world.write(&id, DATA, 4_096, vec![0; 65_536]).await;
    assert!(!world.is_same(&id).await);
    let before = folders(&world).await;
    world.copy(&id, 1).await.unwrap();
    assert!(world.is_same(&id).await);
    assert_eq!(folders(&world).await - before, 6, "what has changed is read, and nothing else");
    world.write(&id, DATA, MIB - 70_000, noise(6, 70_000)).await;
    assert_eq!(world.stop(&id, true, 1).await.unwrap().verb, "confirm-stopped");
    assert!(world.is_same(&id).await);
    assert_eq!(world.of(&id, "runs").await, false);
    assert_eq!(world.of(&id, "snapshots").await, 0);
    let start = world.order(&id, json!({"type": "start"})).await.unwrap_err();
    assert!(start.to_string().contains("stopped by a move"), "{start}");
    world.stop(&id, true, 1).await.unwrap();
    world.release(&id, true).await.unwrap();
    assert_eq!(
        world.vcenter.of(&id).await.unwrap(),
        json!({"runs": true, "snapshots": 0, "mark": "", "tracking": false}),
    );
    world.release(&id, true).await.unwrap();
}

async fn folders(world: &World) -> usize {
    world.vcenter.calls().await.unwrap().iter().filter(|call| *call == "folder").count()
}

#[tokio::test]
async fn other_disks_on_the_host_are_filled_from_the_beginning() {
    let Some(world) = World::new().await else { return };
    let id = world.machine("web").await;
    world.land();
    world.copy(&id, 1).await.unwrap();
    let fault = world.stop(&id, true, 2).await.unwrap_err();
    assert!(fault.to_string().contains("not all of it is here"), "{fault}");
    assert_eq!(world.of(&id, "runs").await, true, "it runs on");
    world.land();
    world.copy(&id, 2).await.unwrap();
    assert!(world.is_same(&id).await);
}

#[tokio::test]
async fn what_a_move_cannot_do_leaves_the_machine_as_it_is() {
    let Some(world) = World::new().await else { return };
    let id = world.machine("web").await;
    // Nobody listens on the host, or not for such disks.
    let fault = world.copy(&id, 1).await.unwrap_err();
    assert!(matches!(fault, DriverFault::Transient(_)), "{fault:?}");
    assert_eq!(world.of(&id, "mark").await, "", "it was not touched");
    world.shelf.put("root", 2 * MIB, 0);
    world.shelf.put("data", MIB, 0);
    let fault = world.copy(&id, 1).await.unwrap_err();
    assert!(fault.to_string().contains("has grown"), "{fault}");
    world.release(&id, false).await.unwrap();
    let mute = json!({"Name": "mute", "Mib": [3, 1], "Tools": "guestToolsNotRunning"});
    let mute = world.vcenter.machine(mute).await.unwrap();
    world.land();
    world.copy(&mute, 1).await.unwrap();
    let fault = world.stop(&mute, true, 1).await.unwrap_err();
    assert!(fault.to_string().contains("VMware Tools"), "{fault}");
    assert_eq!(world.of(&mute, "runs").await, true);
    world.write(&mute, DATA, 0, noise(8, 10)).await;
    world.stop(&mute, false, 1).await.unwrap();
    assert!(world.is_same(&mute).await, "it was cut off, and nothing of it is lost");
    let fault = world.copy(&mute, 1).await.unwrap_err();
    assert!(fault.to_string().contains("stopped for this move"), "{fault}");
}

/// Each call of each order fails once, and loses its answer once: asked again, it ends well.
#[tokio::test]
async fn every_call_fails_once_and_its_answer_is_lost_once() {
    let Some(world) = World::new().await else { return };
    for how in [Broken::Before, Broken::After] {
        let id = world.machine(&format!("web-{how:?}")).await;
        world.land();
        let calls = [
            "CreateContainerView",
            "CreateSnapshot_Task",
            "DestroyView",
            "Login",
            "QueryChangedDiskAreas",
            "ReconfigVM_Task",
            "RemoveSnapshot_Task",
            "RetrievePropertiesEx",
            "RetrieveServiceContent",
            "folder",
        ];
        for call in calls {
            world.vcenter.break_next(call, how).await.unwrap();
        }
        again(&world, async || world.copy(&id, 1).await.map(drop)).await;
        assert_eq!(world.vcenter.unbroken().await.unwrap(), 0, "each was broken");
        assert!(world.is_same(&id).await);
        let calls = [
            "CreateSnapshot_Task",
            "QueryChangedDiskAreas",
            "ReconfigVM_Task",
            "RemoveSnapshot_Task",
            "ShutdownGuest",
            "folder",
        ];
        for call in calls {
            world.vcenter.break_next(call, how).await.unwrap();
        }
        world.write(&id, ROOT, 5, noise(7, 70_000)).await;
        again(&world, async || world.stop(&id, true, 1).await.map(drop)).await;
        assert_eq!(world.vcenter.unbroken().await.unwrap(), 0, "each was broken");
        assert!(world.is_same(&id).await);
        assert_eq!(world.of(&id, "runs").await, false);
        for call in ["PowerOnVM_Task", "ReconfigVM_Task"] {
            world.vcenter.break_next(call, how).await.unwrap();
        }
        again(&world, async || world.release(&id, true).await.map(drop)).await;
        assert_eq!(world.vcenter.unbroken().await.unwrap(), 0, "each was broken");
        let is: Value = world.vcenter.of(&id).await.unwrap();
        assert_eq!(is, json!({"runs": true, "snapshots": 0, "mark": "", "tracking": false}));
    }
}

/// The host's side fails at each request in turn: what was half written is written again.
#[tokio::test]
async fn a_disk_that_cannot_be_written_for_a_moment_has_all_of_it_in_the_end() {
    let Some(world) = World::new().await else { return };
    let id = world.machine("web").await;
    world.land();
    for request in 0..4 {
        world.write(&id, ROOT, request * 70_000, noise(request as u64 + 20, 90_000)).await;
        world.shelf.fail_after(request as u32 % 3);
        again(&world, async || world.copy(&id, 1).await.map(drop)).await;
        assert!(!world.shelf.is_to_fail() && world.is_same(&id).await, "request {request}");
    }
}

/// Until it is done; every fault on the way is one that may go away.
async fn again(world: &World, order: impl AsyncFn() -> Result<(), DriverFault>) {
    for _ in 0..40 {
        match order().await {
            Ok(()) => return,
            Err(DriverFault::Transient(_)) => {}
            Err(fault) => panic!("{fault} after {:?}", world.vcenter.calls().await),
        }
    }
    panic!("it is never done");
}
