//! Laws of every decider, under any history and any commands.

use std::{cell::RefCell, collections::BTreeSet};

use domain::{
    compute::server::Power,
    kernel::{Kind, Stamp, State},
    kinds,
    network::security_group::SecurityGroup,
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::Index,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Value, json};

use crate::samples::{
    ALL, PUBLIC_KEYS, adoption, allowance, backup_creation, backup_place, bandwidth, cost_rules,
    creation, digest, disc, equipment, exchange_rate, finding, foreign_machine, found_addresses,
    found_backup, group, group_rules, holding, id, image_of, image_stored, invoice, launch,
    launch_moved, launch_shared, machine, made, move_beginning, move_landing, new_rate, nic,
    origin, own_network, place, place_on, placement, plan_results, plan_terms, question, quota,
    repricing, rescue_system, restored_from, run, seen_disk, seen_network, seen_of_host, segment,
    server_image, servers, settings, snapshot_place, standing, stated_commitment, subnet, taken,
    terms, time, utilisation, watch,
};

fn stamp() -> Stamp {
    Stamp { now: time(), actor: "test".into() }
}

/// Commands that fit each other now and then: few values, and the numbers of a dozen orders.
fn commands(kind: &str) -> Vec<(&'static str, Value)> {
    let numbers = 1_u64..12;
    let park = |pool: &mut Vec<(&'static str, Value)>| {
        pool.extend(numbers.clone().map(|n| ("park", json!({"number": n, "reason": "quota"}))));
        pool.extend([("abandon", json!({})), ("retry", json!({}))]);
    };
    let vanish = ("vanish", json!({"evidence": "not-found-by-id"}));
    let assign = |n| ("assign", json!({"project": id(n)}));
    let mut pool = Vec::new();
    match kind {
        "anomaly" => {
            let as_of = |position: u64| json!({"position": position, "inputs": "5d"});
            for position in 1..4 {
                for amount in ["150", "170"] {
                    let report = json!({"finding": finding(amount), "as_of": as_of(position)});
                    pool.push(("report", report));
                }
                pool.push(("clear", json!({"reason": "restated", "as_of": as_of(position)})));
            }
            pool.push(("acknowledge", json!({})));
            pool.push(("explain", json!({"text": "the sale"})));
            pool.push(("ignore", json!({})));
        }
        "anomaly-rule" => {
            for sensitivity in ["low", "high"] {
                pool.push(("define", json!({"name": "services", "watch": watch(sensitivity)})));
                pool.push(("define", json!({"watch": watch(sensitivity)})));
            }
            pool.extend([("disable", json!({})), ("enable", json!({}))]);
        }
        "backup" => {
            for _ in 0..2 {
                park(&mut pool);
                pool.push(("create", backup_creation()));
                pool.push(("find", found_backup()));
                for n in numbers.clone() {
                    pool.push(("confirm", json!({"number": n, "made": made()})));
                    pool.push(("confirm-given-up", json!({"number": n})));
                    pool.push(("confirm-removal", json!({"number": n})));
                    for damaged in [json!(null), json!("chunk 3")] {
                        let body = json!({"number": n, "damaged": damaged});
                        pool.push(("confirm-verified", body));
                    }
                }
                for verb in ["begin-use", "end-use"] {
                    pool.extend([14, 15].map(|by| (verb, json!({"by": id(by)}))));
                }
                pool.extend(["verify", "delete", "abandon"].map(|verb| (verb, json!({}))));
                pool.push(assign(34));
            }
        }
        "backup-plan" => {
            park(&mut pool);
            for daily in [7, 8] {
                let terms = plan_terms(daily);
                pool.push(("define", json!({"name": "nightly", "terms": terms})));
                pool.push(("define", json!({"terms": terms})));
            }
            for n in numbers {
                pool.push(("finish-run", json!({"number": n, "results": plan_results()})));
            }
            let verbs = ["pause", "resume", "retire", "run", "run", "run-due"];
            pool.extend(verbs.map(|verb| (verb, json!({}))));
        }
        "backup-set" => {
            pool.push(("create", set_creation()));
            let mut other = set_creation();
            other["name"] = json!("");
            pool.push(("create", other));
            for n in numbers.clone().take(4) {
                pool.push(set_taken(n));
                pool.push(("confirm-given-up", json!({"number": n})));
                pool.push(("confirm-removal", json!({"number": n})));
            }
            pool.push(("abandon", json!({"host_lost": true})));
            pool.push(("delete", json!({"found": [id(31)]})));
            pool.push(("delete", json!({})));
            park(&mut pool);
        }
        "move-in" => {
            pool.push(("begin", move_beginning()));
            for n in numbers.clone() {
                let body = json!({"number": n, "landing": move_landing()});
                pool.push(("confirm-prepared", body));
                for verb in ["closed", "copied", "released", "stopped"] {
                    let verb = match verb {
                        "closed" => "confirm-closed",
                        "copied" => "confirm-copied",
                        "released" => "confirm-released",
                        _ => "confirm-stopped",
                    };
                    pool.push((verb, json!({"number": n})));
                }
            }
            let verbs = ["arrive", "copy-again", "cut-over", "finish", "go-back", "target-gone"];
            pool.extend(verbs.map(|verb| (verb, json!({}))));
            park(&mut pool);
        }
        "backup-store" => {
            park(&mut pool);
            let place = backup_place();
            let body = json!({"name": "vault", "place": place, "credential": "sealed"});
            pool.push(("create", body));
            for n in numbers.clone() {
                pool.push(("confirm", json!({"number": n})));
                pool.push(("refuse", json!({"number": n, "reason": "denied"})));
                let sum = json!({"condemned": n, "removed": 1});
                pool.push(("confirm-collection", json!({"number": n, "sum": sum})));
                let sum = json!({"listed": n, "new": 1});
                pool.push(("confirm-import", json!({"number": n, "sum": sum})));
            }
            pool.extend(["collect", "retire", "verify"].map(|verb| (verb, json!({}))));
            pool.push(("import", json!({"project": id(2)})));
            pool.push(("import", json!({})));
            pool.extend(["s1", "s2"].map(|one| ("update-credential", json!({"credential": one}))));
        }
        "bill" => {
            for (digest, billed) in [("0a", "3.25"), ("0b", "1"), ("0c", "-2")] {
                for manner in ["add", "renew", "replace"] {
                    for reason in ["", "late lines"] {
                        pool.push((
                            "import",
                            json!({
                                "billing_account": "1", "month": "2026-10", "manner": manner,
                                "segment": segment(digest, billed), "reason": reason,
                            }),
                        ));
                    }
                }
            }
            for billed in ["3.25", "1"] {
                pool.push((
                    "state-invoices",
                    json!({
                        "billing_account": "1", "month": "2026-10", "source": "invoices.csv",
                        "invoices": [invoice("A", billed), invoice("B", "2")],
                        "source_digest": "01", "stated_by": "token:ci",
                    }),
                ));
            }
            pool.push(("close", json!({})));
            pool.push(("close", json!({"accept_difference": true})));
            pool.push(("close", json!({"invoiced": {"EUR": "3.25"}})));
        }
        "bill-source" => {
            for prefix in ["focus/", "cur/"] {
                let place = json!({"bucket": "bills", "prefix": prefix});
                pool.push(("define", json!({"name": "aws", "place": place, "credential": "s"})));
                pool.push(("define", json!({"place": place})));
            }
            pool.push(("pull", json!({"reason": "late lines"})));
            for number in 1..4 {
                pool.push(("pull", json!({"due": format!("2026-11-0{number}T06:00:00Z")})));
                for etag in ["a", "b"] {
                    pool.push(("take", json!({"number": number, "taken": taken(etag)})));
                }
                let refused = json!({
                    "delivery": "x", "fingerprint": "00", "code": "bill-closed", "reason": "r",
                });
                let sum = json!({"listed": 1, "taken": 0, "unchanged": 0, "refused": [refused]});
                pool.push(("finish-pull", json!({"number": number, "sum": sum})));
                let why = json!({"number": number, "code": "denied", "reason": "no"});
                pool.push(("fail-pull", why));
                pool.push(("park", json!({"number": number, "reason": "no answer in time"})));
            }
            pool.extend(["pause", "resume", "retire"].map(|verb| (verb, json!({}))));
        }
        "cluster" => {
            for namespace in ["web", "db"] {
                let places = json!([place(namespace)]);
                pool.push(("define", json!({"name": "edge", "places": places})));
                pool.push(("define", json!({"name": "edge", "otherwise": id(2)})));
            }
        }
        "commitment" => {
            for amount in ["365", "1"] {
                pool.push(("define", json!({"terms": terms(amount)})));
            }
            for day in ["2026-02-01", "2026-08-01"] {
                let end = "2028-01-01";
                pool.push(("upgrade", json!({"day": day, "paid": "10", "end": end})));
                pool.push(("cancel", json!({"day": day, "refund": "3"})));
            }
            pool.push(("retire", json!({})));
        }
        "image" => {
            pool.extend([400, 500, 0].map(|size| ("define", image_of(size))));
            pool.extend([("define", image_stored()), uploaded(), uploaded()]);
            pool.extend([1, 2].map(|number| ("confirm-removal", json!({"number": number}))));
            pool.push(("retire", json!({})));
            park(&mut pool);
        }
        "key-pair" => {
            for key in PUBLIC_KEYS {
                pool.push(("define", json!({"name": "ann", "project": id(2), "public_key": key})));
            }
            pool.push(("retire", json!({})));
        }
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
            pool.extend([vanish, assign(2), assign(3)]);
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
        "issuer" => {
            for (cost, status) in [("1200", "open"), ("1300", "closed")] {
                for commitments in [json!([]), json!([stated_commitment("sp-1", cost)])] {
                    pool.push((
                        "state",
                        json!({
                            "name": "AWS", "commitments": commitments,
                            "periods": {"2026-10": status}, "source": "terms.csv",
                            "source_digest": "01", "stated_by": "token:ci",
                        }),
                    ));
                }
            }
        }
        "budget" => {
            for amount in ["100", "200"] {
                pool.push(("define", json!({"name": "shop", "allowance": allowance(amount)})));
                pool.push(("define", json!({"allowance": allowance(amount)})));
            }
            for position in 1..4 {
                for actual in ["50", "90", "130", "170"] {
                    let as_of = json!({"position": position, "inputs": "5d"});
                    let body = json!({"standings": [standing(actual)], "as_of": as_of});
                    pool.push(("evaluate", body));
                }
            }
            pool.extend([("disable", json!({})), ("enable", json!({}))]);
        }
        "driver" => {
            let one = json!(servers());
            let mut other = one.clone();
            other["values"]["2026-12"] = json!(20);
            let mut odd = one.clone();
            odd["values"] = json!({});
            pool.extend([one, other, odd].map(|body| ("define", body)));
            pool.push(("retire", json!({})));
        }
        "exchange-rate" => {
            for (day, rate) in [("2026-10-31", "0.9"), ("2026-10-31", "1/3"), ("2026-11-30", "0")] {
                pool.push(("define", exchange_rate(day, rate)));
            }
            pool.push(("retire", json!({})));
        }
        "repricing" => {
            for (scope, from) in
                [(json!("all"), "2030-01-01"), (json!({"project": id(2)}), "2031-01-01")]
            {
                for price in [json!({"factor": "1.15"}), json!({"discount-percent": "10"})] {
                    pool.push(("define", repricing(&scope, &price, from)));
                }
            }
            let (all, price) = (json!("all"), json!({"factor": 2}));
            let mut today = repricing(&all, &price, "2030-01-01");
            today["from"] = json!(null);
            pool.extend([
                ("define", today),
                ("end", json!({})),
                ("end", json!({"day": "2032-01-01"})),
            ]);
        }
        "report" => {
            for count in [1, 2] {
                pool.push(("define", json!({"name": "services", "question": question(count)})));
                let schedule = json!({"every": "day"});
                let body = json!({"question": question(count), "schedule": schedule});
                pool.push(("define", body));
            }
            pool.extend((1..28).map(|day| ("record", json!({"run": run(day)}))));
            pool.push(("retire", json!({})));
        }
        "rate-set" => {
            for (name, scope) in [
                ("own", json!("default")),
                ("own", json!({"project": id(2)})),
                ("others", json!("default")),
            ] {
                pool.push(("define", json!({"settings": settings(name, &scope)})));
            }
            for key in ["ssd", "hdd"] {
                for price in ["0.02", "0.03"] {
                    for from in [None, Some("2030-01-01T00:00:00Z")] {
                        let rate = new_rate(price, from);
                        pool.push(("set-rate", json!({"key": key, "rate": rate})));
                    }
                }
                pool.push(("end-rate", json!({"key": key})));
                pool.push(("end-rate", json!({"key": key, "to": "2031-01-01T00:00:00Z"})));
                pool.push(("remove-rate", json!({"key": key})));
            }
            pool.push(("retire", json!({})));
        }
        "shape" => {
            for vcpus in [2, 4, 0] {
                let equipment = equipment(vcpus);
                let body = json!({"provider": "sim", "name": "s2.small", "equipment": equipment});
                pool.push(("define", body));
            }
        }
        "snapshot" => {
            for _ in 0..2 {
                park(&mut pool);
                let place = snapshot_place();
                let body = json!({"name": "before", "disk": id(14), "found": place});
                pool.push(("create", body));
                for n in numbers.clone() {
                    pool.push(("confirm", json!({"number": n})));
                    pool.push(("confirm-removal", json!({"number": n})));
                }
                pool.push(("roll-back", json!({"found": place})));
                pool.push(("delete", json!({"found": place})));
                pool.push(("abandon", json!({})));
                pool.push(("go-with-disk", json!({})));
                pool.push(("assign-with-disk", json!({"project": id(34)})));
            }
        }
        "rule-set" => {
            for centre in ["shop", "lab"] {
                let rules = cost_rules(centre);
                pool.push(("define", json!({"name": "costs", "rules": rules})));
                pool.push(("define", json!({"rules": rules})));
            }
            pool.push(("publish", json!({})));
        }
        "domain" => {
            pool.extend(["a", "b", ""].map(|name| ("create", json!({"name": name}))));
            pool.extend(["a", "b"].map(|name| ("rename", json!({"name": name}))));
            pool.extend([("archive", json!({})), ("restore", json!({}))]);
        }
        "organisation" => {
            for levels in [&["a"][..], &["a", "b"]] {
                pool.push(("define", json!({"name": "Acme", "levels": levels})));
            }
            for (key, parent) in [("x", None), ("y", Some("x")), ("z", Some("y"))] {
                let node = json!({"key": key, "parent": parent});
                pool.extend([("add-node", node.clone()), ("move-node", node)]);
                pool.push(("move-node", json!({"key": key})));
                pool.push(("remove-node", json!({"key": key})));
                pool.push(("rename-node", json!({"key": key, "name": "n"})));
                pool.push(("bind", json!({"node": key, "projects": [id(2), id(3)]})));
                pool.push((
                    "set-rules",
                    json!({"rules": [{"conditions": [
                    {"dimension": "name", "values": ["shop"]}], "node": key}]}),
                ));
            }
            pool.push(("set-rules", json!({"rules": []})));
            pool.push(("unbind", json!({"projects": [id(2)]})));
            pool.extend([("archive", json!({})), ("restore", json!({}))]);
        }
        "project" => {
            pool.push(("assign", json!({"domain": id(3)})));
            pool.push(("assign", json!({})));
            pool.push(("tag", json!({"tags": {"a": "1", "team": null}})));
            pool.push(("tag", json!({"tags": {"a": null}})));
            pool.extend(["a", "b", ""].map(|name| ("create", json!({"name": name}))));
            pool.extend(["a", "b"].map(|name| ("rename", json!({"name": name}))));
            pool.extend([("archive", json!({})), ("restore", json!({}))]);
        }
        "tagging" => {
            for (resource, to) in [("i-1", None), ("i-1", Some("2026-11-01")), ("i-2", None)] {
                pool.push((
                    "define",
                    json!({"resource": resource, "project": id(2), "tags": {"a": null}, "to": to}),
                ));
            }
            pool.push(("retire", json!({})));
        }
        "token" => {
            let digest = "0".repeat(64);
            pool.push((
                "issue",
                json!({"name": "ci", "role": "viewer", "reach": "all", "secret_digest": digest}),
            ));
            pool.push(("revoke", json!({})));
        }
        "cloud-account" => {
            park(&mut pool);
            pool.push(("connect", json!({"name": "a", "provider": "sim", "credential": "s1"})));
            for n in numbers {
                for account in ["acc-1", "acc-2"] {
                    pool.push((
                        "confirm-identity",
                        json!({"number": n, "external_account": account, "principal": "p"}),
                    ));
                }
                pool.push((
                    "finish-sync",
                    json!({"number": n, "started_at": time(), "scopes": []}),
                ));
                pool.push(("refuse-credential", json!({"number": n, "reason": "no"})));
            }
            pool.extend([1, 2].map(|n| ("configure", json!({"settings": {"limit": n}}))));
            pool.extend(["pause", "resume", "sync", "verify"].map(|verb| (verb, json!({}))));
            pool.extend(["s1", "s2"].map(|one| ("update-credential", json!({"credential": one}))));
            pool.extend(["a", "b"].map(|name| ("rename", json!({"name": name}))));
        }
        "disk" => {
            park(&mut pool);
            for seen in [seen_disk("data"), seen_disk("other")] {
                pool.push(("observe", json!({"origin": origin("x-1"), "seen": seen})));
                pool.push(("attach", json!({"server": id(7)})));
            }
            for rate in [100, 200] {
                let limits = json!({"read_operations": {"rate": rate}});
                let seen = json!({"size_bytes": 1_u64 << 30, "taken_bytes": rate});
                pool.push(("throttle", json!({"limits": limits})));
                pool.extend(
                    numbers.clone().map(|n| ("confirm", json!({"number": n, "seen": seen}))),
                );
            }
            pool.extend(numbers.clone().map(|n| ("confirm-removal", json!({"number": n}))));
            // Few states take these.
            pool.extend(["abandon", "delete", "detach"].map(|verb| (verb, json!({}))));
            pool.extend([7, 8].map(|one| ("attach", json!({"server": id(one)}))));
            pool.extend([9, 10].map(|size| ("grow", json!({"size_gib": size}))));
            pool.push(("create", creation()));
            for root in [false, true] {
                pool.push(("provision", json!({"creation": creation(), "root": root})));
            }
            let verbs = ["made-with-server", "abandon", "delete", "detach", "go-with-server"];
            pool.extend(verbs.map(|verb| (verb, json!({}))));
            for verb in ["begin-use", "end-use"] {
                pool.extend([32, 33].map(|by| (verb, json!({"by": id(by)}))));
            }
            for verb in ["keep-snapshot", "drop-snapshot"] {
                pool.extend([35, 36].map(|one| (verb, json!({"snapshot": id(one)}))));
            }
            pool.extend([7, 8].map(|host| ("move-with-server", json!({"host": id(host)}))));
            pool.push(("restore", json!({"backup": id(32), "found": restored_from()})));
            pool.extend([vanish, assign(2), assign(3)]);
        }
        "host" => {
            park(&mut pool);
            for number in numbers {
                pool.push(("confirm-clearing", json!({"number": number})));
            }
            for server in [9, 10] {
                for verb in ["clear", "fence"] {
                    pool.push((verb, json!({"server": id(server), "host": id(7)})));
                }
            }
            for reserved in [json!([]), json!([0])] {
                let settings = json!({"cpus_reserved": reserved});
                pool.push(("configure", json!({"settings": settings})));
                pool.push(("enrol", json!({"name": "kvm-1", "settings": settings})));
            }
            for verb in
                ["disable", "drain", "enable", "enter-maintenance", "leave-maintenance", "retire"]
            {
                pool.push((verb, json!({})));
            }
            pool.extend((1..3).map(|n| ("join", json!({"epoch": n, "agent": "skyledger"}))));
            for verb in ["mark-reachable", "mark-unreachable", "mark-reachable"] {
                pool.extend((1..3).map(|n| (verb, json!({"epoch": n}))));
            }
            for server in [9, 10] {
                pool.push(("reserve", json!({"holding": holding(server)})));
                pool.push(("release", json!({"server": id(server)})));
                pool.push(("clear", json!({"server": id(server), "host": id(7)})));
                for memory_mib in [1_024, 2_048, 4_096] {
                    let holding =
                        json!({"server": id(server), "vcpus": 1, "memory_mib": memory_mib});
                    pool.push(("resize", json!({"holding": holding})));
                }
            }
            let mut seen = seen_of_host(8_192);
            seen["machines"] = json!({(id(9).to_string()): foreign_machine()});
            pool.push(("sight", json!({"epoch": 1, "seen": seen})));
            for _ in 0..2 {
                pool.push(("adopt", json!({"machine": id(9), "found": adoption()})));
            }
            for (epoch, memory) in [(1, 8_192), (1, 3_000), (2, 8_192)] {
                let seen = seen_of_host(memory);
                pool.push(("sight", json!({"epoch": epoch, "seen": seen})));
            }
        }
        "server" => {
            park(&mut pool);
            let powers = [Power::Running, Power::Stopped, Power::Starting, Power::Suspended];
            for power in powers {
                let seen = machine(power);
                pool.push(("observe", json!({"origin": origin("i-1"), "seen": seen})));
                pool.extend(
                    numbers.clone().map(|n| ("confirm", json!({"number": n, "seen": seen}))),
                );
            }
            for (day, samples) in [(1, 144), (1, 288), (2, 288)] {
                pool.push(("measure", json!({"utilisation": utilisation(day, samples)})));
            }
            let verbs = ["purge", "start", "stop", "reboot", "delete", "undelete", "protect"];
            pool.extend(verbs.map(|verb| (verb, json!({}))));
            pool.extend([("unprotect", json!({})), ("launch", launch())]);
            pool.push(("adopt", json!({"adoption": adoption()})));
            pool.push(("release", json!({})));
            pool.extend(["come-in", "give-up"].map(|verb| (verb, json!({}))));
            for size in [1, 2] {
                let disk = json!({"id": id(17), "size_gib": size, "format": "qcow2"});
                pool.push(("admit-disk", json!({"host": id(7), "disk": disk})));
            }
            pool.push(("dismiss-disk", json!({"disk": id(17)})));
            pool.push(("delete", json!({"stop": true})));
            pool.extend(["suspend", "resume"].map(|verb| (verb, json!({}))));
            pool.extend(["web", "db"].map(|name| ("rename", json!({"name": name}))));
            pool.push(("set-password", json!({"password": "sealed"})));
            pool.extend(
                [json!(["disk"]), json!(["disk", "network"])]
                    .map(|order| ("set-boot-order", json!({"order": order}))),
            );
            pool.extend(numbers.clone().map(|n| ("confirm-removal", json!({"number": n}))));
            pool.extend(
                numbers.clone().map(|n| ("notice", json!({"number": n, "power": "stopped"}))),
            );
            pool.push(("tag", json!({"tags": {"a": "1", "team": null}})));
            pool.extend([vanish, assign(2), assign(3)]);
            // What few states allow stands in several places.
            let resize = [(4, 4_096), (2, 2_048)].map(|(vcpus, memory_mib)| {
                let placement = placement(vcpus, memory_mib);
                let body = json!({
                    "vcpus": vcpus, "memory_mib": memory_mib, "placement": placement,
                });
                ("resize", body)
            });
            for port in ["80", "443"] {
                let change = json!({
                    "nic": id(15), "bandwidth": bandwidth(port.len() as u64 * 1_000),
                    "security_groups": [id(20)], "groups": group_rules(port),
                });
                pool.push(("change-nic", change));
                pool.push(("change-nic", json!({"nic": id(15), "security_groups": []})));
                pool.push(("follow-groups", json!({"groups": group_rules(port)})));
                let most = quota(port.len() as u64);
                pool.push(("change-nic", json!({"nic": id(15), "quota": most})));
            }
            let rescue = json!({"system": rescue_system(), "password": "sealed"});
            for stop in [true, false] {
                let found = server_image();
                pool.push(("rebuild", json!({"stop": stop, "found": found})));
            }
            let rebuild = json!({"stop": true, "found": server_image()});
            let found = json!({"nic": nic(18, 20), "groups": group_rules("80")});
            let add = json!({"nic": {"network": id(12)}, "found": found});
            for (at, console) in [(30, "serial"), (31, "vnc"), (32, "serial"), (33, "rdp")] {
                let ticket = digest(at);
                let asked = json!({"console": console, "id": id(at), "ticket": ticket});
                pool.extend([
                    ("open-console", asked),
                    ("enter-console", json!({"ticket": ticket})),
                ]);
                let left = json!({"console": id(at), "why": "caller-left"});
                pool.push(("leave-console", left));
            }
            let console = json!({"console": "vnc", "id": id(31), "ticket": digest(31)});
            let [larger, smaller] = resize;
            let rare = [
                ("add-nic", add),
                ("remove-nic", json!({"nic": id(18)})),
                ("follow-groups", json!({"groups": group_rules("22")})),
                ("remove-nic", json!({"nic": id(15)})),
                ("reset-nic-traffic", json!({"nic": id(15)})),
                ("change-nic", json!({"nic": id(15), "quota": quota(7)})),
                ("read-nics", json!({})),
                ("rebuild", rebuild),
                larger,
                ("rescue", rescue),
                ("open-console", console),
                ("enter-console", json!({"ticket": digest(31)})),
                ("undelete", json!({})),
                ("set-password", json!({"password": "sealed"})),
                smaller,
                ("leave-rescue", json!({})),
                ("undelete", json!({})),
                ("purge", json!({})),
            ];
            for (at, one) in rare.iter().cycle().take(45).enumerate() {
                pool.insert(pool.len() * at / 45, one.clone());
            }
            for quarter in 0..4 {
                let at = pool.len() * quarter / 4;
                let gone = numbers.clone().map(|n| ("confirm-removal", json!({"number": n})));
                pool.splice(at..at, gone);
            }
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
                for n in numbers.clone() {
                    pool.push(("link", json!({"number": n, "external_id": "sg-1", "seen": one})));
                    pool.push(("confirm-applied", json!({"number": n, "seen": one})));
                }
            }
            pool.extend(numbers.map(|n| ("confirm-deleted", json!({"number": n}))));
            pool.extend(["accept", "adopt", "retire", "unmute"].map(|verb| (verb, json!({}))));
            pool.extend([true, false].map(|keep| ("reapply", json!({"keep_foreign": keep}))));
            pool.push(("mute", json!({"reason": "known"})));
            pool.push(("mute", json!({"reason": "known", "until": time()})));
            pool.extend([vanish, assign(2), assign(3)]);
        }
        _ => {
            for sample in ALL.iter().filter(|one| one.kind == kind) {
                let seen = sample.kept.iter().find(|(tag, _)| tag == "reappeared").unwrap();
                let mut other = seen.1["seen"].clone();
                other["name"] = json!("other");
                for seen in [&seen.1["seen"], &other] {
                    pool.push(("observe", json!({"origin": origin("x-1"), "seen": seen})));
                }
            }
            pool.extend([vanish, assign(2), assign(3)]);
        }
    }
    // Few commands fit a parked order, so the one that goes on with it stands in several places.
    if pool.iter().any(|(verb, _)| *verb == "retry") {
        for quarter in 0..4 {
            pool.insert(pool.len() * quarter / 4, ("retry", json!({})));
        }
    }
    pool
}

/// What a set of backups is ordered with.
fn set_creation() -> Value {
    json!({
        "name": "monday", "server": id(7), "store": id(9),
        "found": {
            "id": id(30), "project": id(2), "host": id(8),
            "members": [{"disk": id(14), "disk_name": "web-0", "backup": id(31)}],
        },
    })
}

/// A set is there.
fn set_taken(number: u64) -> (&'static str, Value) {
    let taken = json!({"quiesced": true, "made": {id(14).to_string(): made()}});
    ("confirm", json!({"number": number, "taken": taken}))
}

/// The file of an image has come.
fn uploaded() -> (&'static str, Value) {
    let file = json!({"size_bytes": 400 << 20, "disk_bytes": 2_u64 << 30});
    ("confirm-upload", json!({"by": "token:ci", "file": file}))
}

/// Lives that hardly come about by chance: a server's way to another host and its way to other addresses,
/// whatever becomes of them.
/// Machines that come here, and some that go back.
fn move_lives() -> Vec<Vec<(&'static str, Value)>> {
    let number = |verb: &'static str, number: u64| (verb, json!({"number": number}));
    let bare = |verb: &'static str| (verb, json!({}));
    let prepared =
        |number: u64| ("confirm-prepared", json!({"number": number, "landing": move_landing()}));
    let park = |number: u64| ("park", json!({"number": number, "reason": "no route"}));
    let copied = [("begin", move_beginning()), prepared(1), number("confirm-copied", 2)];
    let there = [
        bare("cut-over"),
        park(3),
        bare("retry"),
        number("confirm-stopped", 3),
        number("confirm-closed", 4),
        bare("arrive"),
    ];
    let back = [bare("go-back"), bare("target-gone"), number("confirm-released", 5)];
    let again = [bare("copy-again"), prepared(3), number("confirm-copied", 4), bare("go-back")];
    let ends = [
        there.iter().cloned().chain([bare("finish")]).collect::<Vec<_>>(),
        there.iter().cloned().chain(back).collect(),
        again.into_iter().chain([number("confirm-released", 5), bare("target-gone")]).collect(),
    ];
    ends.into_iter().map(|end| copied.iter().cloned().chain(end).collect()).collect()
}

fn told_lives(kind: &str) -> Vec<Vec<(&'static str, Value)>> {
    if kind == "backup-set" {
        let park = |number: u64| ("park", json!({"number": number, "reason": "no route"}));
        let begun = [("create", set_creation()), park(1)];
        let abandon = ("abandon", json!({}));
        let ends = [
            vec![("retry", json!({})), set_taken(1), ("delete", json!({"found": [id(31)]}))],
            vec![
                abandon.clone(),
                ("confirm-given-up", json!({"number": 2})),
                ("confirm-removal", json!({"number": 3})),
            ],
        ];
        return ends.into_iter().map(|end| begun.iter().cloned().chain(end).collect()).collect();
    }
    if kind == "move-in" {
        return move_lives();
    }
    if kind == "image" {
        let park = ("park", json!({"number": 1, "reason": "no route"}));
        let begun = [("define", image_stored()), uploaded(), ("retire", json!({})), park];
        let removed = ("confirm-removal", json!({"number": 1}));
        let ends = [vec![("retry", json!({})), removed], vec![("abandon", json!({}))]];
        return ends.into_iter().map(|end| begun.iter().cloned().chain(end).collect()).collect();
    }
    if kind == "disk" {
        let restore = json!({"backup": id(32), "found": restored_from()});
        let made = ("provision", json!({"creation": creation(), "root": true}));
        let mut lives = vec![vec![made, ("made-with-server", json!({})), ("restore", restore)]];
        let mut creation = creation();
        creation["found"]["leased"] = json!(true);
        let there = json!({"number": 1, "seen": {"size_bytes": 8, "taken_bytes": 8}});
        let lease = |verb: &'static str| (verb, json!({"host": id(8)}));
        let begun = [("create", creation), ("confirm", there), lease("share-lease")];
        lives.extend(
            ["end-lease", "take-lease", "move-with-server"]
                .map(|end| begun.iter().cloned().chain([lease(end)]).collect()),
        );
        return lives;
    }
    if kind == "host" {
        let mut seen = seen_of_host(8_192);
        seen["machines"] = json!({(id(9).to_string()): foreign_machine()});
        return vec![vec![
            ("enrol", json!({"name": "kvm-1"})),
            ("join", json!({"epoch": 1, "agent": "skyledger"})),
            ("sight", json!({"epoch": 1, "seen": seen})),
            ("adopt", json!({"machine": id(9), "found": adoption()})),
        ]];
    }
    if kind != "server" {
        return Vec::new();
    }
    let there =
        |number: u64| ("confirm", json!({"number": number, "seen": machine(Power::Running)}));
    let step =
        |number: u64, step: Value| ("confirm-migration", json!({"number": number, "step": step}));
    let ready = json!({"type": "prepared", "data": {"landing": {"folder": "/srv"}}});
    let sent = |certain| json!({"type": "sent", "data": {"certain": certain}});
    let stays = json!({"reason": "no route", "seen": machine(Power::Running)});
    let begun = [
        ("launch", launch_shared()),
        there(1),
        ("migrate", json!({"placement": place_on(8)})),
        step(2, ready),
    ];
    let ends = [
        vec![step(3, sent(true)), there(4)],
        vec![step(3, sent(false)), step(4, json!({"type": "lost", "data": {}})), there(5)],
        vec![step(3, json!({"type": "stays", "data": stays}))],
        vec![("abandon", json!({})), step(4, json!({"type": "stays", "data": stays}))],
    ];
    let mut lives: Vec<_> =
        ends.into_iter().map(|end| begun.iter().cloned().chain(end).collect()).collect();
    let mut leased = launch_shared();
    leased["parts"]["disks"][0]["leased"] = json!(true);
    let shared = step(2, json!({"type": "shared", "data": {}}));
    lives.push(vec![("launch", leased), there(1), begun[2].clone(), shared]);
    let off = json!({"number": 1, "seen": machine(Power::Stopped)});
    let put = json!({"image": disc().id, "found": disc()});
    let empty = ("change-cdrom", json!({}));
    lives.push(vec![
        ("launch", launch_shared()),
        ("confirm", off),
        ("change-cdrom", put),
        there(2),
        empty,
        there(3),
    ]);
    let evacuate = json!({"host_is_down": true, "placement": place_on(8)});
    lives.push(vec![begun[0].clone(), there(1), ("evacuate", evacuate), there(2)]);
    let begun = [("launch", launch_shared()), there(1), ("change-addresses", other_addresses())];
    let kept = json!({"number": 2, "reason": "no agent", "seen": machine(Power::Running)});
    let park = |number: u64| ("park", json!({"number": number, "reason": "no agent"}));
    let ends = [
        vec![there(2)],
        vec![("confirm-kept-addresses", kept)],
        vec![park(2), ("abandon", json!({})), there(3)],
        vec![park(2), ("abandon", json!({})), park(3), ("abandon", json!({})), there(4)],
    ];
    lives.extend(ends.into_iter().map(|end| begun.iter().cloned().chain(end).collect()));
    // Somebody's machine is a server, is given back, and is one once more; or is not what was looked at.
    let adopted = ("adopt", json!({"adoption": adoption()}));
    let release = ("release", json!({}));
    let gone = |number: u64| ("confirm-removal", json!({"number": number}));
    lives.push(vec![
        adopted.clone(),
        there(1),
        ("reboot", json!({})),
        there(2),
        release.clone(),
        gone(3),
        adopted.clone(),
        there(4),
        release,
        gone(5),
    ]);
    lives.push(vec![adopted, park(1), ("abandon", json!({})), gone(2)]);
    let held = json!({"number": 2, "seen": machine(Power::Suspended)});
    lives.push(vec![
        ("launch", launch()),
        there(1),
        ("suspend", json!({})),
        ("confirm", held),
        ("resume", json!({})),
        there(3),
    ]);
    // It waits for the machine that it is made from, and is given up for that.
    let come_in = ("come-in", json!({}));
    lives.push(vec![("launch", launch_moved()), come_in, park(1), ("give-up", json!({}))]);
    lives
}

/// An interface is to have other addresses.
fn other_addresses() -> Value {
    let any = json!({"type": "any", "data": {}});
    json!({"nic": id(15), "v4": any, "found": found_addresses()})
}

/// Events that may leave the state as it was.
const SILENT: [(&str, &str); 1] =
    // The credential that was sent again is the one in use; that it was tried is a fact.
    [("cloud-account", "credential-replaced")];

/// Everything a state can be asked.
fn ask(state: &dyn State) {
    let _ = (state.status(), state.order(), state.facets(), state.drift());
}

/// One life of a kind: each pick is the first command from there on that makes facts.
fn live(
    kind: &Kind,
    pool: &[(&str, Value)],
    picks: &[Index],
    made: &mut BTreeSet<String>,
) -> Result<(), TestCaseError> {
    let mut state = (kind.empty)();
    for pick in picks {
        let start = pick.index(pool.len());
        let mut from_here = pool[start..].iter().chain(&pool[..start]);
        let Some((verb, body, decided)) = from_here.find_map(|(verb, body)| {
            let decided = state.decide(verb, body, &stamp()).ok()?;
            (!decided.steps.is_empty()).then_some((verb, body, decided))
        }) else {
            return Ok(());
        };
        for step in decided.steps {
            let before = state.json();
            state.evolve(&step.event_type, &step.data).unwrap();
            let silent = SILENT.contains(&(kind.name, &step.event_type));
            prop_assert!(
                silent || state.json() != before,
                "{verb}: {} says nothing",
                step.event_type
            );
            made.insert(step.event_type);
        }
        prop_assert_eq!(state.json(), decided.state.json(), "{}: promised another state", verb);
        ask(state.as_ref());
        let repeated = state.decide(verb, body, &stamp());
        let steps = repeated.map_or_else(|_| Vec::new(), |again| again.steps);
        prop_assert!(steps.is_empty(), "{verb} {body} twice gives {steps:?} of {state:?}");
        let read = (kind.read)(&state.json()).unwrap();
        prop_assert_eq!(read.json(), state.json());
    }
    Ok(())
}

#[test]
fn every_fact_says_something_and_a_command_repeated_says_nothing() {
    for sample in ALL.iter() {
        let (kind, pool) = (kinds::by_name(sample.kind).unwrap(), commands(sample.kind));
        let made = RefCell::new(BTreeSet::new());
        // Who can do more has more lives to do it in.
        let cases = (sample.types.len() * 16).max(100) as u32;
        let config =
            ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) };
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let lives = vec(any::<Index>(), 20..40);
        TestRunner::new_with_rng(config, rng)
            .run(&lives, |picks| live(kind, &pool, &picks, &mut made.borrow_mut()))
            .unwrap_or_else(|why| panic!("{}: {why}", kind.name));
        for told in told_lives(sample.kind) {
            let mut state = (kind.empty)();
            for (verb, body) in &told {
                let decided = state.decide(verb, body, &stamp()).unwrap();
                assert!(!decided.steps.is_empty(), "{verb} says nothing");
                for step in decided.steps {
                    state.evolve(&step.event_type, &step.data).unwrap();
                    made.borrow_mut().insert(step.event_type);
                }
                let again = state.decide(verb, body, &stamp());
                assert!(again.is_err() || again.unwrap().steps.is_empty(), "{verb} twice");
            }
        }
        // And these lives were full: every type of event was made in one of them.
        assert_eq!(made.into_inner(), sample.types.iter().cloned().collect(), "{}", kind.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn no_history_is_too_strange_to_fold(picks in vec(any::<Index>(), 0..30)) {
        for one in ALL.iter() {
            let kind = kinds::by_name(one.kind).unwrap();
            let mut state = (kind.empty)();
            for pick in &picks {
                let (tag, data) = pick.get(&one.kept);
                state.evolve(tag, &serde_json::to_vec(data).unwrap()).unwrap();
                ask(state.as_ref());
                for verb in (kind.verbs)() {
                    let _ = state.decide(verb.name, &json!({}), &stamp());
                }
            }
        }
    }
}

#[test]
fn every_verb_is_tried() {
    for kind in kinds::KINDS {
        let pool = commands(kind.name);
        for verb in (kind.verbs)() {
            let told: Vec<_> = told_lives(kind.name).into_iter().flatten().collect();
            let mut bodies =
                pool.iter().chain(&told).filter(|(name, _)| *name == verb.name).peekable();
            assert!(bodies.peek().is_some(), "{} {}", kind.name, verb.name);
            for (_, body) in bodies {
                let refused = (kind.empty)().decide(verb.name, body, &stamp()).err();
                let code = refused.map(|no| no.code.code);
                assert_ne!(code, Some("malformed-command"), "{} {} {body}", kind.name, verb.name);
            }
        }
    }
}
