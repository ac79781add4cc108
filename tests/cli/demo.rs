//! The demo, to its end.

use std::process::{Command, Stdio};

use super::{
    Ran, program, run, says,
    server::{Lines, aws, exchange},
};

/// What the story says in any cloud.
const STORY: &[&str] = &[
    "looked again: nothing had changed",
    "[plan-stale]",
    "SIGKILL while the cloud had",
    "a number leads back to its lines",
    "a plan is followed",
    "every view bit-identical",
    "exit code 6, and the record is named",
    "The story came true: 26 things were checked",
];

#[test]
fn the_demos_story_comes_true() {
    let ran = run(&["demo", "--no-serve", "--resources", "60"]);
    assert_eq!(ran.code, 0, "{}\n{}", ran.out, ran.err);
    says(&ran.out, STORY);
    says(&ran.out, &["changed in the cloud by mallory", "get inventory --at"]);
    assert!(!ran.out.contains('\x1b'), "no colours in a pipe");
}

#[test]
fn the_demos_story_comes_true_on_an_aws_endpoint() {
    let (endpoint, _alone) = aws();
    // A run before this one may have left its groups.
    let address = endpoint.strip_prefix("http://").unwrap();
    let reset = format!("POST /moto-api/reset HTTP/1.0\r\nhost: {address}\r\n\r\n");
    assert!(exchange(address, &reset).contains("200"));
    let tour = || run(&["demo", "--no-serve", "--aws-endpoint", &endpoint]);
    let ran = tour();
    assert_eq!(ran.code, 0, "{}\n{}", ran.out, ran.err);
    says(&ran.out, STORY);
    says(&ran.out, &[&endpoint]);
    let again = tour();
    assert_eq!(again.code, 1, "{}", again.out);
    says(&again.err, &["security group demo-", "earlier demo", "AWS_REGION"]);
}

/// As somebody does who copies a line of the demo into a shell.
fn shell(export: &str, line: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{export}; exec {line}")]).stdin(Stdio::null());
    command
}

#[test]
fn the_demo_leaves_its_server_running_and_the_commands_it_names_work_as_they_stand() {
    let mut demo =
        program().args(["demo", "--resources", "60"]).stdout(Stdio::piped()).spawn().unwrap();
    let told = Lines::of(demo.stdout.take().unwrap(), std::io::sink());
    told.next_with("The server goes on at").expect("the demo leaves a server running");
    let export = told.next_with("export SKYLEDGER_SERVER=").unwrap();
    let lines: Vec<String> = (0..5).map(|_| told.next_with(" ").unwrap()).collect();
    for line in &lines {
        if line.contains("--follow") {
            let mut follower = shell(&export, line).stdout(Stdio::piped()).spawn().unwrap();
            let feed = Lines::of(follower.stdout.take().unwrap(), std::io::sink());
            // It begins with what comes next, and nobody tells when it has begun.
            let came = (0..30).any(|_| {
                let program = line.split_whitespace().next().unwrap();
                let make = format!("{program} create project --set name=seen");
                assert!(shell(&export, &make).stdout(Stdio::null()).status().unwrap().success());
                feed.within_a_second("project")
            });
            assert!(came, "{line} shows nothing");
            follower.kill().unwrap();
            follower.wait().unwrap();
            continue;
        }
        let ran = Ran::from(shell(&export, line).output().unwrap());
        assert_eq!(ran.code, 0, "{line}: {}", ran.err);
        let expected = match line {
            line if line.contains("get servers") => "running",
            line if line.contains("describe sg") => "demo-web",
            line if line.contains("diff") => "demo-web",
            line if line.contains("stopped") => "kind",
            line => panic!("a command without a check: {line}"),
        };
        says(&ran.out, &[expected]);
    }
    // One answer could come from a server on its way out; none of many can.
    for _ in 0..30 {
        let ran = Ran::from(shell(&export, &lines[0]).output().unwrap());
        assert_eq!(ran.code, 0, "{}", ran.err);
    }
    assert_eq!(demo.try_wait().unwrap(), None, "the demo ended by itself");
    demo.kill().unwrap();
    demo.wait().unwrap();
}
