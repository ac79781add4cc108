//! Commands of networks, and of what is mapped one to one.

use domain::network::security_group::SecurityGroup;
use serde_json::json;

use super::{Told, assign, numbers, park, vanish};
use crate::samples::{group, id, origin, own_network, seen_network, subnet, time};

/// Commands of a kind of these; none of another.
pub(super) fn commands(kind: &str) -> Vec<Told> {
    let mut pool = Vec::new();
    match kind {
        "network" => {
            pool.push(("define", own_network()));
            for name in ["web-a", "other"] {
                let seen = seen_network(name);
                pool.push(("observe", json!({"origin": origin("x-1"), "seen": seen})));
            }
            for net in ["10.0.0.0/28", "10.0.0.0/27"] {
                pool.push(("change", json!({"v4": subnet(net)})));
            }
            let any = json!({"type": "any", "data": {}});
            let named = json!({"type": "named", "data": {"address": "10.0.0.9"}});
            for (holder, v4) in [(7, &any), (8, &any), (8, &named)] {
                pool.push(("give", json!({"holder": id(holder), "v4": v4, "v6": any})));
                pool.push(("release", json!({"holder": id(holder)})));
                let by = id(if holder == 7 { 8 } else { 7 });
                pool.push(("replace", json!({"holder": id(holder), "by": by})));
            }
            let range = json!({"first": "10.0.0.1", "last": "10.0.0.3"});
            for note in ["", "printers"] {
                pool.push(("reserve", json!({"range": range, "note": note})));
            }
            pool.push(("unreserve", json!({"range": range})));
            pool.push(("retire", json!({})));
            pool.extend([vanish(), assign(2), assign(3)]);
        }
        "segment" => {
            for (medium, mtu) in [(json!({"vlan": {"id": 7}}), 1_500), (json!("bridge"), 1_200)] {
                let body = json!({"name": "a", "medium": medium, "bridge": "br0", "mtu": mtu});
                pool.push(("define", body));
                pool.push(("change", json!({"medium": medium})));
                pool.push(("change", json!({"mtu": mtu, "name": "b"})));
            }
            for (network, net) in [(5, "10.0.0.0/24"), (6, "10.0.0.0/16"), (6, "2001:db8::/64")] {
                pool.push(("attach", json!({"network": id(network), "nets": [net]})));
                pool.push(("detach", json!({"network": id(network)})));
            }
            pool.push(("retire", json!({})));
        }
        "security-group" => {
            park(&mut pool);
            for ports in [&["80"][..], &["80", "443"], &["22"]] {
                let one = group(ports);
                pool.push(("declare", json!({"account": id(1), "provider": "sim", "region": "sim-north-1", "spec": one})));
                let own = SecurityGroup { vpc: None, ..one.clone() };
                pool.push(("declare", json!({"spec": own})));
                pool.push((
                    "observe",
                    json!({"origin": origin("sg-1"), "seen": one, "actor": "ann"}),
                ));
                for n in numbers() {
                    pool.push(("link", json!({"number": n, "external_id": "sg-1", "seen": one})));
                    pool.push(("confirm-applied", json!({"number": n, "seen": one})));
                }
            }
            pool.extend(numbers().map(|n| ("confirm-deleted", json!({"number": n}))));
            pool.extend(["accept", "adopt", "retire", "unmute"].map(|verb| (verb, json!({}))));
            pool.extend([true, false].map(|keep| ("reapply", json!({"keep_foreign": keep}))));
            pool.push(("mute", json!({"reason": "known"})));
            pool.push(("mute", json!({"reason": "known", "until": time()})));
            pool.extend([vanish(), assign(2), assign(3)]);
        }
        _ => {}
    }
    pool
}
