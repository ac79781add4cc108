//! Interfaces that are virtual functions of a card: addresses of a network, set on the card, nothing given twice,
//! and nothing promised that nobody could enforce.

use adapters_sim::SimHosts;
use domain::compute::{
    host::Host,
    placement::{Device, VirtualFunction},
    server::parts::Nic,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Lab;
use crate::hosts::code;

impl Lab {
    /// Its host has these virtual functions, each on a wire.
    async fn has_functions(&self, functions: &[(&str, &str)]) {
        let devices: Vec<Device> = functions
            .iter()
            .map(|(id, carrier)| {
                let device =
                    json!({"id": id, "kind": "vf", "model": "8086:10ca", "carrier": carrier});
                serde_json::from_value(device).unwrap()
            })
            .collect();
        let mut seen = SimHosts::sighting(1, 64, 65_536);
        seen.devices = devices;
        let host = self.host.to_string();
        let (_, host) = self.world.ledger.typed::<Host>(&host).await.unwrap();
        let body = json!({"epoch": host.epoch, "seen": seen});
        self.world.system("host", self.host, "sight", body).await.unwrap();
    }

    /// A segment of a VLAN on the same wire, with a network that addresses are told in by its hosts.
    async fn tagged(&self) -> Uuid {
        let segment = json!({"name": "red", "medium": {"vlan": {"id": 7}}, "bridge": "br0"});
        let segment = self.world.send("segment", None, "define", segment).await.unwrap().id;
        let body = json!({
            "name": "back", "segment": segment, "v4": {"net": "10.7.0.0/29", "step": "up"}, "dhcp": true,
        });
        self.world.send("network", None, "define", body).await.unwrap().id
    }

    async fn refused(&self, nics: Value) -> &'static str {
        let body = json!({"name": "no", "spec": {"vcpus": 1, "memory_mib": 64}, "nics": nics});
        code(self.world.send("server", None, "launch", body).await)
    }

    /// The interfaces of a server, and what functions of its host are set to.
    async fn functions(&self, server: Uuid) -> (Vec<Nic>, Vec<(String, VirtualFunction)>) {
        let home = self.world.server(server).await.home.unwrap();
        let functions = home.placement.holding.functions.into_iter().collect();
        (home.parts.nics, functions)
    }

    /// The only function that a server has, the log's and its host's words agree, is set to this.
    async fn is_set(&self, server: Uuid, wanted: VirtualFunction) {
        let server = self.world.server(server).await;
        let home = server.home.unwrap();
        let asked: Vec<_> = home.spec.devices.iter().map(|ask| ask.function.unwrap()).collect();
        assert_eq!(asked, [wanted]);
        let functions = home.placement.holding.functions;
        assert_eq!(functions.values().collect::<Vec<_>>(), [&wanted]);
        assert_eq!(server.observation.seen.unwrap().functions, functions);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interface_that_is_a_virtual_function_has_its_network_s_address_and_its_segment_s_vlan()
{
    let lab = Lab::of("10.0.0.0/29").await;
    let tagged = lab.tagged().await;
    let direct = |network: Uuid| json!({"network": network, "vnic_type": "direct"});
    // A function of a card on another wire does not do.
    lab.has_functions(&[("0000:61:10.0", "br9")]).await;
    assert_eq!(lab.refused(json!([direct(tagged)])).await, "no-room");
    lab.has_functions(&[("0000:60:10.0", "br0"), ("0000:60:10.2", "br0"), ("0000:61:10.0", "br9")])
        .await;

    let mut nic = direct(tagged);
    nic["bandwidth"] = json!({"egress_kbit_s": 50_000});
    let web = lab.launch(nic).await;
    let (nics, functions) = lab.functions(web).await;
    assert_eq!(nics[0].addresses, ["10.7.0.1/29".parse().unwrap()]);
    assert_eq!(nics[0].lease_s, None, "its seed says its address: nobody hears what it asks");
    let set = VirtualFunction { mac: Some(nics[0].mac), vlan: Some(7), egress_mbit_s: Some(50) };
    assert_eq!(functions, [("0000:60:10.0".to_owned(), set)]);
    let seen = lab.world.server(web).await.observation.seen.unwrap();
    assert_eq!(seen.functions["0000:60:10.0"], set, "and its host has read it back");

    // What it may send is changed while it runs, and stays through what it is made of otherwise.
    let change = json!({"nic": nics[0].id, "bandwidth": {"egress_kbit_s": 80_000}});
    lab.world.send("server", web, "change-nic", change).await.unwrap();
    lab.world.settle().await;
    let set = VirtualFunction { egress_mbit_s: Some(80), ..set };
    lab.is_set(web, set).await;
    lab.world.send("server", web, "stop", json!({})).await.unwrap();
    lab.world.settle().await;
    lab.world.send("server", web, "resize", json!({"vcpus": 2, "memory_mib": 64})).await.unwrap();
    lab.world.settle().await;
    lab.is_set(web, set).await;
    let change = json!({"nic": nics[0].id, "bandwidth": {}});
    lab.world.send("server", web, "change-nic", change).await.unwrap();
    lab.world.settle().await;
    lab.is_set(web, VirtualFunction { egress_mbit_s: None, ..set }).await;

    // One beside one that its host makes; then there is none left on that wire.
    let body = json!({
        "name": "db", "spec": {"vcpus": 1, "memory_mib": 64},
        "nics": [{"network": lab.network}, direct(lab.network)],
    });
    let db = lab.world.send("server", None, "launch", body).await.unwrap().id;
    lab.world.settle().await;
    let (nics, functions) = lab.functions(db).await;
    assert_eq!(nics.iter().map(Nic::is_direct).collect::<Vec<_>>(), [false, true]);
    let set = VirtualFunction { mac: Some(nics[1].mac), ..VirtualFunction::default() };
    assert_eq!(functions, [("0000:60:10.2".to_owned(), set)]);
    assert_eq!(lab.refused(json!([direct(tagged)])).await, "no-room");

    // With its server it is free again, and its address as well.
    lab.world.send("server", web, "delete", json!({"stop": true})).await.unwrap();
    lab.world.settle().await;
    lab.world.send("server", web, "purge", json!({})).await.unwrap();
    lab.world.settle().await;
    let again = lab.launch(direct(tagged)).await;
    assert_eq!(lab.functions(again).await.1[0].0, "0000:60:10.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_could_enforce_on_a_virtual_function_is_refused_and_leaves_nothing() {
    let lab = Lab::of("10.0.0.0/29").await;
    lab.has_functions(&[("0000:60:10.0", "br0")]).await;
    let group = lab.group("443").await;
    let direct = |changes: Value| {
        let mut nic = json!({"network": lab.network, "vnic_type": "direct"});
        for (field, value) in changes.as_object().unwrap() {
            nic[field] = value.clone();
        }
        nic
    };
    for changes in [
        json!({"security_groups": [group]}),
        json!({"quota": {"egress_bytes": 1_000}}),
        json!({"bandwidth": {"ingress_kbit_s": 1_000}}),
    ] {
        let refused = lab.refused(json!([direct(changes.clone())])).await;
        assert_eq!(refused, "not-enforceable", "{changes}");
    }
    let odd = json!({"bandwidth": {"egress_kbit_s": 1_500}});
    assert_eq!(lab.refused(json!([direct(odd)])).await, "invalid-field");
    // A model cannot be named beside it: a card of that model may be on that wire or not.
    let body = json!({
        "name": "no", "nics": [direct(json!({}))],
        "spec": {"vcpus": 1, "memory_mib": 64, "devices": [{"kind": "vf", "model": "8086:10ca"}]},
    });
    assert_eq!(code(lab.world.send("server", None, "launch", body).await), "invalid-field");

    // It comes and goes with its server's place.
    let web = lab.launch(direct(json!({}))).await;
    let nic = lab.functions(web).await.0[0].id;
    let ask = |verb: &'static str, body: Value| {
        let world = &lab.world;
        async move { code(world.send("server", web, verb, body).await) }
    };
    assert_eq!(ask("add-nic", json!({"nic": direct(json!({}))})).await, "unsupported");
    assert_eq!(ask("remove-nic", json!({"nic": nic})).await, "unsupported");
    let change = |what: &str, value: Value| ask("change-nic", json!({"nic": nic, what: value}));
    assert_eq!(change("security_groups", json!([group])).await, "not-enforceable");
    assert_eq!(change("quota", json!({"egress_bytes": 1_000})).await, "not-enforceable");
    let rate = |bandwidth: Value| change("bandwidth", bandwidth);
    assert_eq!(rate(json!({"ingress_kbit_s": 1_000})).await, "not-enforceable");
    assert_eq!(rate(json!({"egress_kbit_s": 1_500})).await, "invalid-field");
    assert_eq!(ask("reset-nic-traffic", json!({"nic": nic})).await, "unsupported");
    // One that its host makes is added to it as to any.
    let body = json!({"nic": {"network": lab.network, "security_groups": [group]}});
    lab.world.send("server", web, "add-nic", body).await.unwrap();
    lab.world.settle().await;
    assert_eq!(lab.functions(web).await.0.len(), 2);
}
