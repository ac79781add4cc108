//! Hosts of our own, as people read them.

use std::io::{self, Write};

use comfy_table::Cell;
use serde_json::Value;

use crate::{
    columns::plain,
    costs::{close, items, right, text},
    format::{bare, heading},
    style::Style,
};

/// What is in the way of a machine, and what else is to be known of it, a line each.
pub(crate) fn in_the_way(of: &Value) -> String {
    let obstacle = |one: &Value| format!("{}: {}", text(one, "code"), text(one, "detail"));
    let obstacles = items(of, "obstacles").iter().map(obstacle);
    let notes = items(of, "notes").iter().map(|note| format!("note: {}", plain(note)));
    let lines: Vec<String> = obstacles.chain(notes).collect();
    if lines.is_empty() { "–".to_owned() } else { lines.join("\n") }
}

/// The machines of a host that are no servers of ours, and what is in the way of adopting each.
///
/// # Errors
/// What the output says.
pub fn machines(out: &mut dyn Write, answer: &Value, style: Style) -> io::Result<()> {
    let all = items(answer, "items");
    let name = style.bold(text(answer, "name"));
    if all.is_empty() {
        return writeln!(out, "{name} has said of no machine that is not a server of ours");
    }
    let mut table = bare(style);
    let headings = ["machine", "name", "power", "vcpus", "memory", "digest", "what is in the way"];
    table.set_header(headings.map(heading));
    for one in all {
        let is = &one["adoption"]["machine"];
        table.add_row(vec![
            Cell::new(text(one, "machine")),
            Cell::new(text(is, "name")),
            Cell::new(text(is, "power")),
            right(plain(&is["vcpus"])),
            right(format!("{} MiB", plain(&is["memory_mib"]))),
            Cell::new(text(is, "digest")),
            Cell::new(in_the_way(one)),
        ]);
    }
    close(&mut table);
    writeln!(out, "{table}")?;
    let counts = [plain(&answer["adoptable"]), plain(&answer["others"])];
    writeln!(out, "{name}: {} can be adopted, {} cannot", counts[0], counts[1])
}

/// The devices of a host, each with what has become of it, and how many are left of each sort.
///
/// # Errors
/// What the output says.
pub fn devices(out: &mut dyn Write, answer: &Value, style: Style) -> io::Result<()> {
    let name = style.bold(text(answer, "name"));
    let all = items(answer, "items");
    if all.is_empty() {
        return writeln!(out, "{name} has no devices that servers can have");
    }
    let mut table = bare(style);
    table.set_header(["device", "kind", "model", "cell", "group", "state", "server"].map(heading));
    let number = |value: &Value| if value.is_null() { "–".to_owned() } else { plain(value) };
    for one in all {
        table.add_row(vec![
            Cell::new(text(one, "id")),
            Cell::new(text(one, "kind")),
            Cell::new(text(one, "model")),
            right(number(&one["cell"])),
            right(number(&one["iommu_group"])),
            Cell::new(text(one, "state")),
            Cell::new(one["server"].as_str().unwrap_or("–")),
        ]);
    }
    close(&mut table);
    writeln!(out, "{table}\n")?;
    let mut table = bare(style);
    let headings = ["kind", "model", "profile", "memory", "free", "attached", "reserved", "lost"];
    table.set_header(headings.map(heading));
    for one in items(answer, "counts") {
        let profile = &one["profile"];
        let memory = &profile["framebuffer_mib"];
        table.add_row(vec![
            Cell::new(text(one, "kind")),
            Cell::new(text(one, "model")),
            Cell::new(profile["name"].as_str().unwrap_or("–")),
            right(if memory.is_null() { "–".to_owned() } else { format!("{memory} MiB") }),
            right(plain(&one["free"])),
            right(plain(&one["attached"])),
            right(plain(&one["reserved"])),
            right(plain(&one["lost"])),
        ]);
    }
    close(&mut table);
    writeln!(out, "{table}")
}

/// Which servers of a host can go elsewhere, and what is in the way of the others.
///
/// # Errors
/// What the output says.
pub fn drain(out: &mut dyn Write, answer: &Value, style: Style) -> io::Result<()> {
    let servers = items(answer, "items");
    let name = style.bold(text(answer, "name"));
    if servers.is_empty() {
        return writeln!(out, "{name} has no servers");
    }
    let mut table = bare(style);
    let headings = ["server", "status", "vcpus", "memory", "goes", "to, or what is in the way"];
    table.set_header(headings.map(heading));
    for server in servers {
        let obstacles = items(server, "obstacles").iter();
        let obstacles: Vec<String> = obstacles
            .map(|one| format!("{}: {}", text(one, "code"), text(one, "detail")))
            .collect();
        let where_to = match server["to"].as_str() {
            Some(host) => host.to_owned(),
            None => obstacles.join("\n"),
        };
        table.add_row(vec![
            Cell::new(text(server, "name")),
            Cell::new(text(server, "status")),
            right(plain(&server["vcpus"])),
            right(format!("{} MiB", plain(&server["memory_mib"]))),
            Cell::new(server["way"].as_str().unwrap_or("–")),
            Cell::new(where_to),
        ]);
    }
    close(&mut table);
    writeln!(out, "{table}")?;
    let counts = [plain(&answer["movable"]), plain(&answer["staying"])];
    writeln!(out, "{name}: {} can go, {} cannot", counts[0], counts[1])
}

/// Where a server would go, why not elsewhere, and how many more of it there is room for.
///
/// # Errors
/// What the output says.
pub fn placements(out: &mut dyn Write, answer: &Value, style: Style) -> io::Result<()> {
    let all = items(answer, "items");
    let chosen = &answer["placement"]["host"];
    if !all.is_empty() {
        let mut table = bare(style);
        table.set_header(
            ["host", "fits", "more", "what it gets, or what is in the way"].map(heading),
        );
        for one in all {
            let reasons: Vec<String> = items(one, "reasons")
                .iter()
                .map(|reason| format!("{}: {}", text(reason, "code"), text(reason, "detail")))
                .collect();
            let fits = match one["fits"].as_bool() {
                Some(true) if &one["host"] == chosen => "goes here",
                Some(true) => "yes",
                _ => "no",
            };
            let room = &one["room"];
            table.add_row(vec![
                Cell::new(text(one, "name")),
                Cell::new(fits),
                right(if room.is_null() { "–".to_owned() } else { plain(room) }),
                Cell::new(if reasons.is_empty() { gets(one) } else { reasons.join("\n") }),
            ]);
        }
        close(&mut table);
        writeln!(out, "{table}")?;
    }
    match answer["refusal"]["detail"].as_str() {
        Some(detail) => writeln!(out, "It would go nowhere: {detail}")?,
        None if all.is_empty() => {
            writeln!(out, "It would go to host {}: {}", plain(chosen), gets(&answer["placement"]))?;
        }
        None => {}
    }
    let limited = answer["limited"].as_bool().unwrap_or_default();
    let count = style.bold(&plain(&answer["count"]));
    let least = items(answer, "bounds").iter().filter(|one| one["count"] == answer["count"]);
    let least: Vec<String> = least
        .filter(|_| !limited)
        .map(|one| match one["of"].as_str() {
            Some(of) => format!("{} {of}", text(one, "what")),
            None => text(one, "what").to_owned(),
        })
        .collect();
    match (limited, least.is_empty()) {
        (true, _) => writeln!(out, "{count} more fit, and perhaps more than were counted"),
        (false, true) => writeln!(out, "{count} more fit"),
        (false, false) => writeln!(out, "{count} more fit, by {}", least.join(", ")),
    }
}

/// What a server takes of its host, in a few words.
fn gets(of: &Value) -> String {
    let holding = &of["holding"];
    let numbers = |list: &Value, name: &str| {
        let all = list.as_array().map_or(&[][..], Vec::as_slice).iter();
        let all: Vec<String> =
            all.map(|one| plain(if name.is_empty() { one } else { &one[name] })).collect();
        all.join(",")
    };
    let mut parts = Vec::new();
    let cells = numbers(&holding["cells"], "cell");
    if !cells.is_empty() {
        parts.push(format!("cells {cells}"));
    }
    let cpus = numbers(&holding["cpus"], "");
    if !cpus.is_empty() {
        parts.push(format!("CPUs {cpus} for itself"));
    }
    let devices = numbers(&holding["devices"], "");
    if !devices.is_empty() {
        parts.push(format!("devices {devices}"));
    }
    if of["irregular"].as_bool().unwrap_or_default() {
        parts.push("irregular: in no cells".to_owned());
    }
    if parts.is_empty() { "a share of all of it".to_owned() } else { parts.join("; ") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_machine_is_on_a_line_with_all_that_is_in_the_way_and_all_that_is_to_be_known() {
        let machine = json!({
            "name": "db", "power": "running", "vcpus": 2, "memory_mib": 512, "digest": "9f2c",
        });
        let answer = json!({
            "name": "kvm-1", "adoptable": 0, "others": 1,
            "items": [{
                "machine": "4b1d", "adoption": {"machine": machine}, "notes": ["it is full"],
                "obstacles": [{"code": "nic", "detail": "no network"}],
            }],
        });
        let mut out = Vec::new();
        machines(&mut out, &answer, Style::PLAIN).unwrap();
        let text = String::from_utf8(out).unwrap();
        for part in ["4b1d", "db", "512 MiB", "9f2c", "nic: no network", "note: it is full"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(text.ends_with("kvm-1: 0 can be adopted, 1 cannot\n"), "{text}");
        let mut out = Vec::new();
        machines(&mut out, &json!({"name": "kvm-1", "items": []}), Style::PLAIN).unwrap();
        assert!(String::from_utf8(out).unwrap().starts_with("kvm-1 has said of no machine"));
    }

    #[test]
    fn a_device_is_on_a_line_with_its_state_and_what_is_left_of_its_sort_below() {
        let device = |id: &str, state: &str, server: Value| {
            json!({
                "id": id, "kind": "vgpu", "model": "10de:26b9/nvidia-1155", "cell": 0,
                "iommu_group": null, "state": state, "server": server,
            })
        };
        let profile = json!({"name": "NVIDIA L40S-24Q", "framebuffer_mib": 24_576});
        let answer = json!({
            "name": "kvm-1",
            "items": [device("one", "attached", json!("4b1d")), device("two", "free", Value::Null)],
            "counts": [{
                "kind": "vgpu", "model": "10de:26b9/nvidia-1155", "profile": profile,
                "free": 1, "attached": 1, "reserved": 0, "lost": 0,
            }],
        });
        let mut out = Vec::new();
        devices(&mut out, &answer, Style::PLAIN).unwrap();
        let text = String::from_utf8(out).unwrap();
        let line = |name: &str| text.lines().find(|line| line.contains(name)).unwrap();
        assert!(line("one").contains("attached") && line("one").contains("4b1d"), "{text}");
        assert!(line("two").contains("free"), "{text}");
        assert!(line("L40S-24Q").contains("24576 MiB"), "{text}");
        let mut out = Vec::new();
        devices(&mut out, &json!({"name": "kvm-1", "items": []}), Style::PLAIN).unwrap();
        assert!(String::from_utf8(out).unwrap().starts_with("kvm-1 has no devices"));
    }

    #[test]
    fn each_host_is_on_a_line_with_what_a_server_gets_there_or_why_it_gets_nothing() {
        let holding = json!({"cells": [{"cell": 1}], "cpus": [4, 5], "devices": []});
        let memory = json!({"code": "memory", "detail": "64 MiB asked, 16 MiB free"});
        let answer = json!({
            "placement": {"host": "a"}, "refusal": null, "count": 3, "limited": false,
            "bounds": [{"what": "network", "of": "n-1", "count": 3}, {"what": "hosts", "count": 7}],
            "items": [
                {"host": "a", "name": "kvm-1", "fits": true, "room": 7, "reasons": [], "holding": holding,
                 "irregular": false},
                {"host": "b", "name": "kvm-2", "fits": false, "room": 0, "reasons": [memory]},
            ],
        });
        let mut out = Vec::new();
        placements(&mut out, &answer, Style::PLAIN).unwrap();
        let text = String::from_utf8(out).unwrap();
        let line = |name: &str| text.lines().find(|line| line.contains(name)).unwrap();
        assert!(line("kvm-1").contains("goes here"), "{text}");
        assert!(line("kvm-1").contains("cells 1; CPUs 4,5 for itself"), "{text}");
        assert!(line("kvm-2").contains("memory: 64 MiB asked, 16 MiB free"), "{text}");
        assert!(text.ends_with("3 more fit, by network n-1\n"), "{text}");
        let nowhere = json!({
            "placement": null, "refusal": {"code": "no-room", "detail": "1 hosts: memory 1"},
            "count": 0, "limited": false, "items": [], "bounds": [{"what": "hosts", "count": 0}],
        });
        let mut out = Vec::new();
        placements(&mut out, &nowhere, Style::PLAIN).unwrap();
        let text = String::from_utf8(out).unwrap();
        let told = "It would go nowhere: 1 hosts: memory 1\n0 more fit, by hosts\n";
        assert_eq!(text, told);
    }

    #[test]
    fn what_goes_and_what_stays_is_on_a_line_each_with_where_to_or_why() {
        let server = |name: &str, way: Option<&str>, obstacles: Value| {
            json!({
                "name": name, "status": "running", "vcpus": 2, "memory_mib": 512, "way": way,
                "to": way.map(|_| "host-2"), "obstacles": obstacles,
            })
        };
        let stays = json!([
            {"code": "local-disks", "detail": "2 of its disks are on this host alone"},
            {"code": "rescued", "detail": "it is being repaired: leave-rescue first"},
        ]);
        let answer = json!({
            "name": "kvm-1", "movable": 1, "staying": 1,
            "items": [server("web", Some("live"), json!([])), server("db", None, stays)],
        });
        let mut out = Vec::new();
        drain(&mut out, &answer, Style::PLAIN).unwrap();
        let text = String::from_utf8(out).unwrap();
        let line = |name: &str| text.lines().find(|line| line.contains(name)).unwrap();
        assert!(line("web").contains("live") && line("web").contains("host-2"), "{text}");
        assert!(line("db").contains("local-disks: 2 of its disks"), "{text}");
        assert!(text.contains("rescued: it is being repaired"), "{text}");
        assert!(text.ends_with("kvm-1: 1 can go, 1 cannot\n"), "{text}");
        let mut out = Vec::new();
        drain(&mut out, &json!({"name": "kvm-1", "items": []}), Style::PLAIN).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "kvm-1 has no servers\n");
    }
}
