//! Commands of servers, and of what they are made of and kept in.

use domain::compute::server::Power;
use serde_json::json;

use super::{Told, assign, numbers, park, set_creation, set_taken, uploaded, vanish};
use crate::samples::{
    PUBLIC_KEYS, adoption, backup_creation, backup_place, bandwidth, creation, digest, equipment,
    flavour_spec, foreign_machine, found_backup, found_set, group_rules, holding, id, image_of,
    image_of_disk, image_stored, launch, machine, made, move_beginning, move_landing, nic, origin,
    placement, plan_results, plan_terms, quota, rescue_system, restored_from, seen_disk,
    seen_of_host, server_image, snapshot_place, utilisation,
};

/// Commands of a kind of these; none of another.
pub(super) fn commands(kind: &str) -> Vec<Told> {
    let mut pool = Vec::new();
    match kind {
        "backup" => {
            for _ in 0..2 {
                park(&mut pool);
                pool.push(("create", backup_creation()));
                pool.push(("find", found_backup()));
                for n in numbers() {
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
            for n in numbers() {
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
            for n in numbers().take(4) {
                pool.push(set_taken(n));
                pool.push(("confirm-described", json!({"number": n})));
                pool.push(("confirm-given-up", json!({"number": n})));
                pool.push(("confirm-removal", json!({"number": n})));
            }
            pool.push(("abandon", json!({"host_lost": true})));
            pool.push(("find", found_set()));
            pool.push(("delete", json!({"found": [id(31)]})));
            pool.push(("delete", json!({})));
            park(&mut pool);
        }
        "move-in" => {
            pool.push(("begin", move_beginning()));
            for n in numbers() {
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
            for n in numbers() {
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
        "flavour" => {
            for name in ["small", "large"] {
                let spec = flavour_spec();
                pool.push(("define", json!({"name": name, "project": id(2), "spec": spec})));
            }
            pool.push(("retire", json!({})));
        }
        "image" => {
            pool.extend([400, 500, 0].map(|size| ("define", image_of(size))));
            pool.extend([("define", image_stored()), uploaded(), uploaded()]);
            pool.push(("define", image_of_disk()));
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
                for n in numbers() {
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
                pool.extend(numbers().map(|n| ("confirm", json!({"number": n, "seen": seen}))));
            }
            pool.extend(numbers().map(|n| ("confirm-removal", json!({"number": n}))));
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
            pool.extend([vanish(), assign(2), assign(3)]);
        }
        "host" => {
            park(&mut pool);
            for number in numbers() {
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
                pool.extend(numbers().map(|n| ("confirm", json!({"number": n, "seen": seen}))));
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
            pool.extend(numbers().map(|n| ("confirm-removal", json!({"number": n}))));
            pool.extend(numbers().map(|n| ("notice", json!({"number": n, "power": "stopped"}))));
            pool.push(("tag", json!({"tags": {"a": "1", "team": null}})));
            pool.extend([vanish(), assign(2), assign(3)]);
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
                let gone = numbers().map(|n| ("confirm-removal", json!({"number": n})));
                pool.splice(at..at, gone);
            }
        }
        _ => {}
    }
    pool
}
