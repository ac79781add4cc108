//! What a vCenter has: who one is there, its machines, and what is in the way of moving them.

use adapters_clouds::{testing::vcenter::VCenter, vmware::Vmware};
use commands::ports::{DriverFault, Provider};
use serde_json::{Value, json};

use crate::world::{MIB, ROOT, World, access};

#[tokio::test]
async fn a_vcenter_says_who_one_is_and_lets_nobody_else_in() {
    let Some(world) = World::new().await else { return };
    let identity = world.vmware.identity(&world.access).await.unwrap();
    assert_eq!(identity.principal, "mover");
    assert_eq!(identity.external_account.len(), 36, "{identity:?}");
    for credential in [json!({"user": "mover", "password": "another"}), json!({"user": "mover"})] {
        let other = access(&world.vcenter, credential);
        let fault = world.vmware.identity(&other).await.unwrap_err();
        assert!(matches!(fault, DriverFault::Denied(_)), "{fault:?}");
        assert!(!fault.to_string().contains("another"));
    }
    let calls = world.vcenter.calls().await.unwrap();
    assert_eq!(calls.iter().filter(|call| *call == "Logout").count(), 1, "sessions are ended");
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_known_by_its_fingerprint() {
    let Some(vcenter) = VCenter::start_secure().await.unwrap() else { return };
    let with = |print: Value| {
        let mut credential = VCenter::credential();
        credential["fingerprint"] = print;
        access(&vcenter, credential)
    };
    let vmware = Vmware::new();
    for access in [with(Value::Null), with(json!("0a".repeat(32)))] {
        let fault = vmware.identity(&access).await.unwrap_err();
        assert!(matches!(fault, DriverFault::Transient(_)), "{fault:?}");
    }
    let own = vcenter.fingerprint().unwrap();
    assert_eq!(vmware.identity(&with(json!(own))).await.unwrap().principal, "mover");
}

#[tokio::test]
async fn machines_are_found_as_they_are_listed_and_are_started_and_stopped() {
    let Some(world) = World::new().await else { return };
    let mut ids = vec![world.machine("web").await, world.machine("db").await];
    ids.sort_unstable();
    let listing = world.vmware.list(&world.access, None, "server", None).await.unwrap();
    let listed: Vec<_> = listing.sightings.iter().map(|one| one.external_id.clone()).collect();
    assert_eq!((listed, listing.next), (ids.clone(), None));
    let seen = &listing.sightings.iter().find(|one| one.seen["name"] == "web").unwrap();
    assert_eq!(seen.seen["power"], "running");
    assert_eq!(
        (&seen.seen["shape"], &seen.seen["addresses"]),
        (&json!("2x512"), &json!(["10.0.0.77/32"]))
    );
    let found = world.vmware.find(&world.access, None, "server", &seen.external_id).await.unwrap();
    assert_eq!(found.as_ref(), Some(*seen));
    let none = world.vmware.find(&world.access, None, "server", "vm-0").await.unwrap();
    assert_eq!(none, None);
    for (order, power) in
        [("stop", "stopped"), ("stop", "stopped"), ("start", "running"), ("start", "running")]
    {
        let done = world.order(&ids[0], json!({"type": order})).await.unwrap();
        assert_eq!(done.body["seen"]["power"], power);
    }
    let fault = world.order(&ids[0], json!({"type": "reboot"})).await.unwrap_err();
    assert!(matches!(fault, DriverFault::Rejected(_)), "{fault:?}");
}

#[tokio::test]
async fn what_is_in_the_way_of_a_machine_is_said() {
    let Some(world) = World::new().await else { return };
    let plain = world.machine("web").await;
    let make = async |name: &str, more: Value| {
        let mut ask = json!({"Name": name, "Mib": [1]});
        for (field, value) in more.as_object().unwrap() {
            ask[field] = value.clone();
        }
        world.vcenter.machine(ask).await.unwrap()
    };
    make("apart", json!({"Mode": "independent_persistent"})).await;
    make("kept", json!({"Snapshot": true, "Firmware": "efi"})).await;
    make("off", json!({"Off": true, "Controller": "lsilogic-sas"})).await;
    let all = world.vmware.machines().unwrap().list(&world.access).await.unwrap();
    let of = |name: &str| all.iter().find(|one| one.name == name).unwrap();
    let codes = |name: &str| of(name).obstacles().iter().map(|one| one.code).collect::<Vec<_>>();
    assert_eq!(codes("web"), Vec::<&str>::new());
    assert_eq!(codes("apart"), ["copy"]);
    assert_eq!(codes("kept"), ["copy"]);
    assert!(of("kept").obstacles()[0].detail.contains("before the update"));
    assert_eq!(codes("off"), ["not-running"]);
    let web = of("web");
    let disks: Vec<_> = web.disks.iter().map(|one| (one.index, one.size_bytes as usize)).collect();
    assert_eq!(disks, [(ROOT, 3 * MIB), (ROOT + 1, MIB)]);
    assert_eq!(web.host_address, Some("127.0.0.1".parse().unwrap()), "this machine sends");
    assert_eq!(json!(web.hardware), json!({"disks": "sata", "nics": "e1000e"}));
    assert_eq!(json!(of("kept").firmware), "uefi");
    let one = world.vmware.machines().unwrap().machine(&world.access, &plain).await.unwrap();
    assert_eq!(one.as_ref(), Some(web));
    let none = world.vmware.machines().unwrap().machine(&world.access, "vm-0").await.unwrap();
    assert_eq!(none, None);
}

#[tokio::test]
async fn a_listing_that_breaks_off_is_a_fault_and_never_a_shorter_one() {
    use adapters_clouds::testing::cloudpods::Broken;
    let Some(world) = World::new().await else { return };
    world.machine("web").await;
    for call in [
        "RetrieveServiceContent",
        "Login",
        "CreateContainerView",
        "RetrievePropertiesEx",
        "DestroyView",
    ] {
        for how in [Broken::Before, Broken::After] {
            world.vcenter.break_next(call, how).await.unwrap();
            let fault = world.vmware.list(&world.access, None, "server", None).await.unwrap_err();
            assert!(matches!(fault, DriverFault::Transient(_)), "{call}: {fault:?}");
            assert_eq!(world.vcenter.unbroken().await.unwrap(), 0);
        }
    }
}
