//! The command line from outside: help, exit codes, typos, configuration errors, upkeep of a store,
//! and the demo to its end.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::{
    io::Write,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
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
    command.env_remove("SKYLEDGER_SERVER").env_remove("SKYLEDGER_TOKEN").env_remove("NO_COLOR");
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

/// A server of its own, killed when the test ends.
struct Server {
    child: Child,
    url: String,
    token: String,
}

impl Server {
    fn start(folder: &Path) -> Self {
        let token_file = folder.join("token");
        let (mut child, port) = Self::spawn(folder, |serve| {
            serve.arg("--token-file").arg(&token_file);
        });
        let until = Instant::now() + Duration::from_secs(30);
        let url = format!("http://127.0.0.1:{port}");
        loop {
            let token = std::fs::read_to_string(&token_file).unwrap_or_default().trim().to_owned();
            let there = std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
            if there && !token.is_empty() {
                return Self { child, url, token };
            }
            if child.try_wait().unwrap().is_some() || Instant::now() > until {
                Self::failed(&mut child, folder);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A server on a free port; what it says goes into `log` of the folder.
    fn spawn(folder: &Path, more: impl FnOnce(&mut Command)) -> (Child, u16) {
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut serve = program();
        serve
            .args(["serve", "--until-stdin-closes", "--sync-interval", "0", "--data"])
            .arg(folder.join("data"))
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .arg("--sim")
            .arg(folder.join("cloud.json"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log);
        more(&mut serve);
        (serve.spawn().unwrap(), port)
    }

    /// One that answers: its start is over. The token is for the caller to fill in.
    fn answering(folder: &Path, more: impl FnOnce(&mut Command)) -> Self {
        use std::io::Read;
        let (mut child, port) = Self::spawn(folder, more);
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let mut answer = String::new();
            // It listens before it starts, and answers when it has.
            if let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) {
                let request = "GET /livez HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n";
                let _ = stream.write_all(request.as_bytes());
                let _ = stream.read_to_string(&mut answer);
            }
            if answer.contains("alive") {
                let url = format!("http://127.0.0.1:{port}");
                return Self { child, url, token: String::new() };
            }
            if child.try_wait().unwrap().is_some() || Instant::now() > until {
                Self::failed(&mut child, folder);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn failed(child: &mut Child, folder: &Path) -> ! {
        let _ = child.kill();
        panic!("{}", std::fs::read_to_string(folder.join("log")).unwrap_or_default());
    }

    fn run(&self, words: &[&str]) -> Ran {
        let mut command = program();
        command.env("SKYLEDGER_SERVER", &self.url).env("SKYLEDGER_TOKEN", &self.token);
        command.args(words).output().unwrap().into()
    }

    /// Ends its standard input, which asks it to stop.
    fn stop(mut self) -> i32 {
        drop(self.child.stdin.take());
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
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

#[test]
fn the_exit_code_says_what_kind_of_no_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
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
fn a_stopped_store_is_checked_replayed_exported_verified_and_imported() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    assert_eq!(server.run(&["create", "project", "--set", "name=shop"]).code, 0);
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (data, export) = (path("data"), path("ledger.jsonl"));
    let busy = run(&["check", "--data", &data]);
    assert_eq!(busy.code, 1);
    says(&busy.err, &["another process"]);
    assert_eq!(server.stop(), 0);

    says(&run(&["check", "--data", &data]).out, &["sound: 3 records"]);
    let replay = run(&["replay", "--verify", "--threads", "1", "--data", &data]);
    assert_eq!(replay.code, 0, "{}", replay.err);
    says(&replay.out, &["inventory", "identical"]);
    assert_eq!(run(&["rebuild", "all", "--data", &data]).code, 0);
    assert_eq!(run(&["export", "--data", &data, "-o", &export]).code, 0);

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
    assert_eq!(run(&["check", "--data", &path("nowhere")]).code, 4, "upkeep makes no store");
}

/// A database of its own on the PostgreSQL of `./test`.
async fn fresh_database() -> String {
    let url = std::env::var("SKYLEDGER_TEST_POSTGRES")
        .expect("SKYLEDGER_TEST_POSTGRES is not set: run the tests with ./test");
    let (client, connection) =
        tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("PostgreSQL answers");
    let connection = tokio::spawn(connection);
    let name = format!("cli_{}", uuid::Uuid::now_v7().simple());
    client.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    drop(client);
    connection.await.unwrap().unwrap();
    let (server, _) = url.rsplit_once('/').unwrap();
    format!("{server}/{name}")
}

#[test]
fn the_first_token_is_shown_at_the_first_start_and_never_again() {
    let folder = tempfile::tempdir().unwrap();
    let said = || std::fs::read_to_string(folder.path().join("log")).unwrap();
    let server = Server::answering(folder.path(), |_| {});
    let first = said();
    says(&first, &["The first admin token, shown only now:", "export SKYLEDGER_TOKEN="]);
    let token = first.lines().find(|line| line.trim().starts_with("skyledger_")).unwrap().trim();
    let tokens = server.run(&["--token", token, "get", "tokens", "-o", "csv"]);
    assert_eq!(tokens.code, 0, "{}", tokens.err);
    assert_eq!(server.stop(), 0);
    let server = Server::answering(folder.path(), |_| {});
    let second = said();
    assert!(!second.contains("skyledger_") && !second.contains("first admin token"), "{second}");
    assert_eq!(server.run(&["--token", token, "get", "tokens", "-o", "csv"]).out, tokens.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_that_start_on_one_empty_postgresql_make_one_project_and_one_token() {
    let store = fresh_database().await;
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    // Both on their way before either answers.
    let starts: Vec<_> = folders
        .iter()
        .map(|folder| {
            let (path, store) = (folder.path().to_owned(), store.clone());
            std::thread::spawn(move || {
                let file = path.join("token");
                Server::answering(&path, |serve| {
                    serve.args(["--store", &store, "--token-file"]).arg(file);
                })
            })
        })
        .collect();
    let servers: Vec<_> = starts.into_iter().map(|start| start.join().unwrap()).collect();
    let tokens: Vec<_> = folders
        .iter()
        .filter_map(|folder| std::fs::read_to_string(folder.path().join("token")).ok())
        .collect();
    assert_eq!(tokens.len(), 1, "one of them was told a token");
    for server in &servers {
        // The log itself: views may be behind.
        for kind in ["project", "token"] {
            let token = tokens[0].trim();
            let events = server.run(&["--token", token, "events", "--kind", kind, "-o", "name"]);
            assert_eq!(events.code, 0, "{}", events.err);
            assert_eq!(events.out.lines().count(), 1, "{kind}: {}", events.out);
        }
    }
    // A token that was lost is replaced beside them: this store takes several processes.
    let data = folders[0].path().join("data").display().to_string();
    let place = ["--data", &data, "--store", &store];
    let issued = run(&[&["token", "create", "again"][..], &place].concat());
    assert_eq!(issued.code, 0, "{}", issued.err);
    let with = servers[1].run(&["--token", issued.out.trim(), "events", "--kind", "token"]);
    assert_eq!(with.code, 0, "{}", with.err);
    assert_eq!(with.out.matches("issued").count(), 2, "{}", with.out);
}

#[test]
fn a_lost_token_is_replaced_on_the_stopped_servers_folder() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(Server::start(folder.path()).stop(), 0);
    let data = folder.path().join("data").display().to_string();
    let issued = run(&["token", "create", "again", "--data", &data]);
    assert_eq!(issued.code, 0, "{}", issued.err);
    let server = Server::start(folder.path());
    let with = server.run(&["--token", issued.out.trim(), "get", "tokens"]);
    assert_eq!(with.code, 0, "{}", with.err);
    says(&with.out, &["again", "admin"]);
    let nowhere = folder.path().join("nowhere").display().to_string();
    assert_eq!(run(&["token", "create", "again", "--data", &nowhere]).code, 4, "it makes no store");
    let scoped = run(&["token", "create", "again", "--data", &data, "--project", "default"]);
    assert_eq!(scoped.code, 2, "it would reach everything");
}

#[test]
fn the_demos_story_comes_true() {
    let ran = run(&["demo", "--no-serve", "--resources", "60"]);
    assert_eq!(ran.code, 0, "{}\n{}", ran.out, ran.err);
    says(
        &ran.out,
        &[
            "looked again: nothing had changed",
            "changed in the cloud by mallory",
            "[plan-stale]",
            "SIGKILL while the cloud had",
            "every view bit-identical",
            "exit code 6, and the record is named",
            "The story came true: 18 things were checked",
        ],
    );
    assert!(!ran.out.contains('\x1b'), "no colours in a pipe");
}

#[test]
fn the_demo_leaves_its_server_running_until_it_is_ended_itself() {
    use std::io::BufRead;
    let mut demo =
        program().args(["demo", "--resources", "60"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufReader::new(demo.stdout.take().unwrap()).lines();
    let mut told = |what: &str| {
        let line = lines.by_ref().map(Result::unwrap).find(|line| line.contains(what));
        line.unwrap_or_else(|| panic!("the demo never said {what}"))
    };
    told("The server goes on at");
    let export = told("export SKYLEDGER_SERVER=");
    let value = |name: &str| {
        let word = export.split_whitespace().find_map(|word| word.strip_prefix(name));
        word.unwrap().trim_start_matches('=').to_owned()
    };
    let (server, token) = (value("SKYLEDGER_SERVER"), value("SKYLEDGER_TOKEN"));
    // One answer could come from a server on its way out; none of many can.
    for _ in 0..30 {
        let ran: Ran = program()
            .args(["--server", &server, "--token", &token, "get", "servers", "--limit", "1"])
            .output()
            .unwrap()
            .into();
        assert_eq!(ran.code, 0, "{}", ran.err);
    }
    assert_eq!(demo.try_wait().unwrap(), None, "the demo ended by itself");
    demo.kill().unwrap();
    demo.wait().unwrap();
}
