//! Commands on a store whose server is stopped, on both stores, and a log that moves between them.

use std::path::Path;

use super::{
    Ran, run, says,
    server::{Server, Store},
};

fn upkeep(store: &Store) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), store);
    assert_eq!(server.run(&["create", "project", "--set", "name=shop"]).code, 0);
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (data, export) = (path("data"), path("ledger.jsonl"));
    let place = ["--data", &data, "--store", store.word()];
    let on = |words: &[&str]| run(&[words, &place].concat());
    let meanwhile = on(&["check"]);
    if store.is_embedded() {
        assert_eq!(meanwhile.code, 1);
        says(&meanwhile.err, &["another process"]);
    } else {
        says(&meanwhile.out, &["sound: 3 records"]);
    }
    assert_eq!(server.stop(), 0);

    says(&on(&["check"]).out, &["sound: 3 records"]);
    let replay = on(&["replay", "--verify", "--threads", "1"]);
    assert_eq!(replay.code, 0, "{}", replay.err);
    says(&replay.out, &["inventory", "identical"]);
    let rebuilt = on(&["rebuild", "all"]);
    assert_eq!(rebuilt.code, 0, "{}", rebuilt.err);
    assert_eq!(on(&["export", "-o", &export]).code, 0);

    let key = path("data/keys/witness.pub");
    let witness = path("data/witness");
    let verify = |file: &str| run(&["audit", "verify", file, "--key", &key, "--witness", &witness]);
    let good = verify(&export);
    assert_eq!(good.code, 0, "{}{}", good.out, good.err);
    says(&good.out, &["verified: 3 records", "signed with the key"]);
    let text = std::fs::read_to_string(&export).unwrap();
    let forged = path("forged.jsonl");
    std::fs::write(&forged, text.replacen("\"shop\"", "\"shoq\"", 1)).unwrap();
    let bad = verify(&forged);
    assert_eq!(bad.code, 6);
    says(&bad.out, &["NOT verified", "position 3"]);

    let other = path("other");
    let imported = run(&["import", &export, "--key", &key, "--data", &other]);
    assert_eq!(imported.code, 0, "{}", imported.err);
    says(&imported.out, &["up to position 3"]);
    assert_eq!(run(&["import", &forged, "--data", &path("third")]).code, 6);
    let nowhere = run(&["check", "--data", &path("nowhere"), "--store", store.word()]);
    assert_eq!(nowhere.code, 4, "upkeep makes no store");
}

#[test]
fn a_stopped_store_is_checked_replayed_exported_verified_and_imported_embedded() {
    upkeep(&Store::Embedded);
}

#[test]
fn a_stopped_store_is_checked_replayed_exported_verified_and_imported_on_postgresql() {
    upkeep(&Store::postgres());
}

fn lost_token(store: &Store) {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(Server::start(folder.path(), store).stop(), 0);
    let data = folder.path().join("data").display().to_string();
    let issued = run(&["token", "create", "again", "--data", &data, "--store", store.word()]);
    assert_eq!(issued.code, 0, "{}", issued.err);
    let server = Server::start(folder.path(), store);
    let with = server.run(&["--token", issued.out.trim(), "get", "tokens"]);
    assert_eq!(with.code, 0, "{}", with.err);
    says(&with.out, &["again", "admin"]);
}

#[test]
fn a_lost_token_is_replaced_on_the_stopped_servers_store_embedded() {
    lost_token(&Store::Embedded);
}

#[test]
fn a_lost_token_is_replaced_on_the_stopped_servers_store_on_postgresql() {
    lost_token(&Store::postgres());
}

#[test]
fn a_token_is_not_issued_on_a_store_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("nowhere");
    let ran = run(&["token", "create", "again", "--data", nowhere.to_str().unwrap()]);
    assert_eq!(ran.code, 4, "{}{}", ran.out, ran.err);
    assert!(!nowhere.exists());
}

/// What stands behind `root` in what a command says.
#[track_caller]
fn root(said: &str) -> String {
    let root = said.split("root ").nth(1).expect("it says the root");
    root.chars().take_while(char::is_ascii_hexdigit).collect()
}

#[track_caller]
fn done(ran: Ran) -> Ran {
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    ran
}

/// A server's folder with the keys of another, as one that takes over its log needs it.
fn with_keys_of(folder: &Path) -> tempfile::TempDir {
    let new = tempfile::tempdir().unwrap();
    let (from, to) = (folder.join("data/keys"), new.path().join("data/keys"));
    std::fs::create_dir_all(&to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
    new
}

#[test]
fn a_log_moves_to_postgresql_and_back_with_the_same_root_and_is_served_there() {
    let first = tempfile::tempdir().unwrap();
    let server = Server::start(first.path(), &Store::Embedded);
    let token = server.token.clone();
    for name in ["shop", "bank"] {
        done(server.run(&["create", "project", "--set", &format!("name={name}")]));
    }
    assert_eq!(server.stop(), 0);

    let postgres = Store::postgres();
    let file = first.path().join("ledger.jsonl").display().to_string();
    let data = |folder: &Path| folder.join("data").display().to_string();
    let key = first.path().join("data/keys/witness.pub").display().to_string();
    let out = |folder: &Path, store: &Store| {
        let words = ["export", "-o", &file, "--data", &data(folder), "--store", store.word()];
        root(&done(run(&words)).err)
    };
    let into = |folder: &Path, store: &Store| {
        let place = ["--data", &data(folder), "--store", store.word()];
        let imported = done(run(&[&["import", &file, "--key", &key][..], &place].concat()));
        let checked = done(run(&[&["check"][..], &place].concat()));
        assert_eq!(root(&imported.out), root(&checked.out));
        root(&imported.out)
    };
    // The old token opens what was there before.
    let serves = |folder: &Path, store: &Store| {
        std::fs::write(folder.join("token"), &token).unwrap();
        let server = Server::start(folder, store);
        let projects = done(server.run(&["get", "projects", "-o", "csv"]));
        says(&projects.out, &["default,", "shop,", "bank,"]);
        assert_eq!(server.stop(), 0);
    };

    let was = out(first.path(), &Store::Embedded);
    assert_eq!(was.len(), 64);
    let second = with_keys_of(first.path());
    assert_eq!(into(second.path(), &postgres), was);
    serves(second.path(), &postgres);
    assert_eq!(out(second.path(), &postgres), was, "to serve writes nothing");
    let third = with_keys_of(second.path());
    assert_eq!(into(third.path(), &Store::Embedded), was);
    serves(third.path(), &Store::Embedded);
}

#[test]
fn a_row_that_differs_from_the_log_is_named_and_the_exit_code_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &Store::Embedded);
    assert_eq!(server.run(&["create", "project", "--set", "name=shop"]).code, 0);
    let id = server.run(&["get", "project", "shop", "-o", "name"]).out;
    let id = id.trim().trim_start_matches("project/").to_owned();
    assert_eq!(server.stop(), 0);
    let data = folder.path().join("data").display().to_string();
    let replay = |more: &[&str]| run(&[&["replay", "--verify", "--data", &data], more].concat());
    assert_eq!(replay(&[]).code, 0);

    let tables = std::fs::read_dir(folder.path().join("data/views")).unwrap();
    let inventory = tables
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().ends_with(".sqlite") && is_inventory(path))
        .unwrap();
    let table = inventory.file_stem().unwrap().to_string_lossy().into_owned();
    let forge = format!("UPDATE {table} SET name = 'shoq' WHERE key = ?1");
    let connection = rusqlite::Connection::open(&inventory).unwrap();
    assert_eq!(connection.execute(&forge, [&id]).unwrap(), 1);
    drop(connection);

    let differs = replay(&[]);
    assert_eq!(differs.code, 6, "{}", differs.err);
    says(&differs.out, &["DIFFERS at row", &id, "differs in a column", "identical"]);
    let json = replay(&["-o", "json"]);
    assert_eq!(json.code, 6);
    let views: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    let verified = |name: &str| {
        let mut all = views.as_array().unwrap().iter();
        all.find(|one| one["view"] == name).unwrap().clone()
    };
    assert!(verified("inventory")["first_difference"].as_str().unwrap().starts_with(&id));
    assert_eq!(verified("sync_runs")["first_difference"], serde_json::Value::Null);

    // The log is right, so building the view anew puts it right.
    assert_eq!(run(&["rebuild", "inventory", "--data", &data]).code, 0);
    assert_eq!(replay(&[]).code, 0);
}

fn is_inventory(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("v_inventory_"))
}
