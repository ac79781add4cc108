//! The program from outside, as people and scripts meet it: help, typos and configuration errors
//! here; its commands against servers of its own, on both stores, in the files beside.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod agent;
mod backups;
mod commands;
mod consoles;
mod costs;
mod demo;
mod first_start;
mod forecasts;
mod images;
mod pulls;
mod runs;
mod server;
mod telemetry;
mod upkeep;
mod watch;

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

/// What a command came to.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skyledger"));
    // Nothing of the person who runs the tests.
    for variable in [
        "AWS_ACCESS_KEY_ID",
        "AWS_ENDPOINT_URL",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "NO_COLOR",
        "SKYLEDGER_CA_FILE",
        "SKYLEDGER_SERVER",
        "SKYLEDGER_TOKEN",
    ] {
        command.env_remove(variable);
    }
    command.env("XDG_CONFIG_HOME", "/nonexistent").stdin(Stdio::null());
    command
}

fn run(words: &[&str]) -> Ran {
    program().args(words).output().unwrap().into()
}

#[track_caller]
fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is missing in:\n{text}");
    }
}

#[test]
fn help_shows_examples_and_long_help_the_exit_codes() {
    let short = run(&["-h"]);
    assert_eq!(short.code, 0);
    says(&short.out, &["Usage: skyledger", "serve", "demo", "Examples:", "skyledger get servers"]);
    says(&run(&["--help"]).out, &["Exit codes:", "6  a digest, a signature or a proof"]);
    let get = run(&["get", "--help"]);
    assert_eq!(get.code, 0);
    says(&get.out, &["--filter", "--at", "--order-by", "table", "yaml", "Examples:"]);
    let without = run(&[]);
    assert_eq!(without.code, 2, "no command is a mistake");
}

#[test]
fn a_typo_gets_a_suggestion_and_exit_code_2() {
    let command = run(&["sreve"]);
    assert_eq!(command.code, 2);
    says(&command.err, &["sreve", "'serve'"]);
    let kind = run(&["get", "sevrers"]);
    assert_eq!(kind.code, 2);
    says(&kind.err, &["sevrers", "'servers'"]);
    let verb = run(&["do", "sg", "repaply", "x"]);
    assert_eq!(verb.code, 2);
    says(&verb.err, &["repaply", "did you mean `reapply`?", "accept"]);
    let view = run(&["rebuild", "inventroy"]);
    assert_eq!(view.code, 2);
    says(&view.err, &["did you mean `inventory`?"]);
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell]);
        assert_eq!(script.code, 0);
        says(&script.out, &["skyledger", "mappings", "reapply"]);
    }
}

#[test]
fn a_server_that_is_not_there_is_a_fault_with_a_hint() {
    let nobody = run(&["--server", "http://127.0.0.1:1", "get", "projects"]);
    assert_eq!(nobody.code, 1);
    says(&nobody.err, &["no answer from http://127.0.0.1:1", "refused", "hint: start one"]);
    assert_eq!(run(&["--server", "ftp://x", "get", "projects"]).code, 2);
}

#[test]
fn a_mistake_in_the_configuration_names_file_line_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let check = |text: &str, parts: &[&str]| {
        let path = folder.path().join("skyledger.toml");
        std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        let ran = run(&["serve", "--print-config", "--config", path.to_str().unwrap()]);
        assert_eq!(ran.code, 2, "{}", ran.out);
        says(&ran.err, parts);
    };
    check("grace_s = 5\nlisten_on = \"x\"\n", &["skyledger.toml:2:", "listen_on", "`listen`"]);
    check("listen = \"nowhere\"\n", &["skyledger.toml:1:", "listen"]);
    check("listen = \"0.0.0.0:7878\"\n", &["listen", "tls_cert"]);
    check("store = \"mysql://x\"\n", &["store", "postgres://"]);
    assert_eq!(run(&["serve", "--config", "/nonexistent.toml"]).code, 2);
}

#[test]
fn the_configuration_that_is_printed_is_one_that_reads() {
    let folder = tempfile::tempdir().unwrap();
    let printed = run(&["serve", "--print-config", "--listen", "127.0.0.1:1234"]);
    assert_eq!(printed.code, 0);
    says(&printed.out, &["listen = \"127.0.0.1:1234\"", "store = \"sqlite\""]);
    let path = folder.path().join("printed.toml");
    std::fs::write(&path, &printed.out).unwrap();
    let again = run(&["serve", "--print-config", "--config", path.to_str().unwrap()]);
    assert_eq!(again.out, printed.out);
}
