//! Lives that are told, for they hardly come about by chance.

use domain::compute::server::Power;
use serde_json::{Value, json};

use super::{Told, other_addresses, set_creation, set_taken, uploaded};
use crate::samples::{
    adoption, blueprint, creation, disc, foreign_machine, id, image_of_disk, image_stored, launch,
    launch_moved, launch_shared, machine, move_beginning, move_landing, place_on, restored_from,
    seen_of_host,
};

/// Machines that come here, and some that go back.
fn move_lives() -> Vec<Vec<Told>> {
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

/// Lives that hardly come about by chance: a server's way to another host and its way to other addresses,
/// whatever becomes of them.
pub(crate) fn told_lives(kind: &str) -> Vec<Vec<Told>> {
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
        let mut lives: Vec<Vec<Told>> =
            ends.into_iter().map(|end| begun.iter().cloned().chain(end).collect()).collect();
        let mut described = set_creation();
        described["found"]["blueprint"] = blueprint();
        let whole = [("create", described), set_taken(1)];
        let delete = ("delete", json!({"found": [id(31)]}));
        let removed = ("confirm-removal", json!({"number": 3}));
        let ends = [
            vec![("confirm-described", json!({"number": 2})), delete, removed],
            vec![
                ("park", json!({"number": 2, "reason": "no route"})),
                ("abandon", json!({})),
                ("delete", json!({"found": []})),
                ("park", json!({"number": 3, "reason": "no route"})),
                ("abandon", json!({})),
            ],
        ];
        lives.extend(ends.map(|end| whole.iter().cloned().chain(end).collect()));
        return lives;
    }
    if kind == "move-in" {
        return move_lives();
    }
    if kind == "image" {
        let park = ("park", json!({"number": 1, "reason": "no route"}));
        let begun = [("define", image_stored()), uploaded(), ("retire", json!({})), park];
        let removed = ("confirm-removal", json!({"number": 1}));
        let ends = [vec![("retry", json!({})), removed], vec![("abandon", json!({}))]];
        let lives = ends.into_iter().map(|end| begun.iter().cloned().chain(end).collect());
        let file = json!({"size_bytes": 400 << 20, "disk_bytes": 2_u64 << 30});
        let made = ("confirm-made", json!({"number": 1, "sha256": "0c".repeat(32), "file": file}));
        let of_disk = vec![("define", image_of_disk()), made, ("retire", json!({}))];
        return lives.chain([of_disk]).collect();
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
    let off = |number: u64| ("confirm", json!({"number": number, "seen": machine(Power::Stopped)}));
    let found = |devices: Value, held: Value| {
        let mut placement = launch_shared()["placement"].clone();
        placement["holding"]["devices"] = held;
        json!({"devices": devices, "placement": placement})
    };
    let card = json!({"kind": "gpu", "count": 1});
    let with = found(json!([card]), json!(["0000:3b:00.0"]));
    let without = found(json!([]), json!([]));
    lives.push(vec![
        ("launch", launch_shared()),
        off(1),
        ("add-device", json!({"device": card, "found": with})),
        off(2),
        ("remove-device", json!({"device": "0000:3b:00.0", "found": without})),
        off(3),
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
