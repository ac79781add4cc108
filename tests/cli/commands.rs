//! Commands against a server: exit codes, plans, waiting, the past, feeds, and TLS.

use std::{path::Path, process::Stdio, time::Duration};

use domain::compute::server::Power;
use serde_json::Value;

use super::{
    run, says,
    server::{ACCOUNT, Lines, Server, Store, aws, cloud},
};

fn exit_codes(store: &Store) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), store);
    let code = |words: &[&str]| server.run(words).code;
    assert_eq!(code(&["get", "projects"]), 0);
    assert_eq!(code(&["create", "project", "--set", "name=shop"]), 0);
    assert_eq!(code(&["create", "project", "--set", "nme=shop"]), 2, "malformed");
    assert_eq!(code(&["create", "project", "--set", "name="]), 3, "a rule said no");
    assert_eq!(code(&["get", "project", "nobody"]), 4);
    assert_eq!(code(&["do", "project", "rename", "shop", "--set", "name=b", "--if-match", "7"]), 5);
    let denied = server.run(&["--token", "wrong", "get", "projects"]);
    assert_eq!(denied.code, 3);
    says(&denied.err, &["unauthenticated", "hint:"]);
    let named = server.run(&["get", "project", "shop", "-o", "name"]);
    says(&named.out, &["project/"]);
    let by_name = server.run(&["get", named.out.trim(), "-o", "csv"]);
    says(&by_name.out, &["name,status", "shop,active"]);
    let plan = server.run(&["do", "project", "archive", "shop", "--dry-run"]);
    says(&plan.out, &["active → archived", "plan id:"]);
    says(&server.run(&["get", "project", "shop"]).out, &["active"]);
    assert!(!server.run(&["get", "projects"]).out.contains('\x1b'), "no colours in a pipe");
    assert_eq!(server.stop(), 0, "it stops cleanly");
}

#[test]
fn the_exit_code_says_what_kind_of_no_it_was_embedded() {
    exit_codes(&Store::Embedded);
}

#[test]
fn the_exit_code_says_what_kind_of_no_it_was_on_postgresql() {
    exit_codes(&Store::postgres());
}

#[test]
fn the_past_is_read_with_at_and_a_plan_is_carried_out_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &Store::Embedded);
    let made = server.json(&["create", "project", "--set", "name=old"]);
    let (id, position) = (made["id"].as_str().unwrap(), made["position"].to_string());
    let rename = ["do", "project", "rename", id, "--set", "name=new"];
    let plan = server.json(&[&rename[..], &["--dry-run"]].concat());
    let plan_id = plan["plan_id"].as_str().unwrap();
    let name = |at: &[&str]| server.json(&[&["get", "project", id], at].concat())["name"].clone();
    assert_eq!(name(&[]), "old", "a plan changes nothing");
    let with_plan = [&rename[..], &["--plan-id", plan_id]].concat();
    assert_eq!(server.run(&with_plan).code, 0);
    let stale = server.run(&with_plan);
    assert_eq!(stale.code, 5, "{}", stale.err);
    says(&stale.err, &["plan-stale"]);
    assert_eq!(name(&[]), "new");
    assert_eq!(name(&["--at", &position]), "old");
    let then = server.run(&["get", "projects", "--at", &position]);
    says(&then.out, &[&format!("projects at {position}"), "old"]);
    assert_eq!(server.run(&["get", "projects", "--at", "yesteryear"]).code, 2);
}

#[test]
fn a_wait_that_ends_too_early_is_7_and_an_order_that_is_parked_is_1() {
    let folder = tempfile::tempdir().unwrap();
    let (cloud, population) = cloud(folder.path());
    let server = Server::start(folder.path(), &Store::Embedded);
    server.connect();
    let running = server.json(&["get", "servers", "--filter", "status = running", "--limit", "2"]);
    let column = |row: usize, name: &str| running[row][name].as_str().unwrap().to_owned();

    // Somebody stops it in the cloud; the ledger has not looked since.
    let region = population.regions().remove(0);
    let by_hand = cloud.console(ACCOUNT, "mallory");
    by_hand.set_power(&region, &column(0, "external_id"), Power::Stopped).unwrap();
    let parked = server.run(&["reboot", &column(0, "id"), "--wait"]);
    assert_eq!(parked.code, 1, "{}{}", parked.out, parked.err);
    says(&parked.out, &["parked", "does not run"]);
    says(&server.run(&["orders"]).out, &["parked", "does not run"]);

    cloud.set_latency(Duration::from_secs(20)).unwrap();
    let early = server.run(&["stop", &column(1, "id"), "--wait=1s"]);
    assert_eq!(early.code, 7, "{}{}", early.out, early.err);
    cloud.set_latency(Duration::ZERO).unwrap();
}

#[test]
fn a_feed_shows_records_as_they_come_and_only_those_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &Store::Embedded);
    let first = server.json(&["create", "project", "--set", "name=first"]);
    let after = first["position"].to_string();
    let words = ["events", "--follow", "--kind", "project", "--after", &after, "-o", "json"];
    let mut follower = server.client(&words).stdout(Stdio::piped()).spawn().unwrap();
    let lines = Lines::of(follower.stdout.take().unwrap(), std::io::sink());
    assert_eq!(server.run(&["token", "create", "ci"]).code, 0);
    let second = server.json(&["create", "project", "--set", "name=second"]);
    let line: Value = serde_json::from_str(&lines.next_with("").unwrap()).unwrap();
    assert_eq!(line["position"], second["position"], "neither the first project nor the token");
    assert_eq!(line["id"], second["id"]);
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[test]
fn an_aws_account_is_connected_as_the_readme_and_the_guide_show_it() {
    let (endpoint, _alone) = aws();
    for document in ["README.md", "docs/guides/connect-aws.md"] {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(folder.path(), &Store::Embedded);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
        let text = std::fs::read_to_string(path).unwrap();
        let sample = text.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
        // With the role, where one is shown.
        let sample =
            sample.replace("# role_arn", "role_arn").replace("# external_id", "external_id");
        let file = folder.path().join("account.yaml");
        std::fs::write(&file, format!("{sample}\nendpoint: {endpoint}\n")).unwrap();
        let file = file.display().to_string();
        let ran = server.run(&["create", "account", "-f", &file, "--wait"]);
        assert_eq!(ran.code, 0, "{document}: {}{}", ran.out, ran.err);
        let account = server.json(&["get", "account", "prod"]);
        assert_eq!(account["status"], "connected", "{document}: {account}");
        assert_eq!(account["state"]["external_account"], "123456789012");
    }
}

#[test]
fn over_tls_the_client_trusts_the_authority_it_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let tls = Path::new(env!("CARGO_MANIFEST_DIR")).join("adapters/http/tests/http/tls");
    let (certificate, key) = (tls.join("certificate.pem"), tls.join("key.pem"));
    let config = folder.path().join("skyledger.toml");
    std::fs::write(&config, format!("tls_cert = {certificate:?}\ntls_key = {key:?}\n")).unwrap();
    let more = ["--config", config.to_str().unwrap()];
    let server = Server::start_with(folder.path(), &Store::Embedded, &more);
    says(&server.url, &["https://127.0.0.1:"]);
    let stranger = server.run(&["get", "projects"]);
    assert_ne!(stranger.code, 0);
    says(&stranger.err, &["hint:", "--ca-file"]);
    let by_flag = server.run(&["get", "projects", "--ca-file", certificate.to_str().unwrap()]);
    assert_eq!(by_flag.code, 0, "{}", by_flag.err);
    says(&by_flag.out, &["default"]);
    let mut by_variable = server.client(&["get", "projects"]);
    by_variable.env("SKYLEDGER_CA_FILE", &certificate);
    assert!(by_variable.output().unwrap().status.success());
    let none = server.run(&["get", "projects", "--ca-file", key.to_str().unwrap()]);
    assert_eq!(none.code, 2, "{}", none.err);
    says(&none.err, &["no certificate"]);
}

#[test]
fn a_server_on_the_loopback_needs_neither_a_proxy_nor_root_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &Store::Embedded);
    let bare = |words: &[&str]| {
        let mut command = server.client(words);
        for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
            command.env(variable, "http://127.0.0.1:1");
        }
        command.env("SSL_CERT_FILE", "/dev/null").env("SSL_CERT_DIR", "/nonexistent");
        super::Ran::from(command.output().unwrap())
    };
    let ran = bare(&["get", "projects"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    // The machine really has no certificates then.
    says(&bare(&["--server", "https://127.0.0.1:1", "get", "projects"]).err, &["--ca-file"]);
    assert_eq!(run(&["--server", "http://127.0.0.1:1", "get", "projects"]).code, 1);
}
