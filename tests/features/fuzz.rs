//! Every route of the OpenAPI document is sent what it describes and what it does not, by a fuzzer
//! that knows nothing of this code: no answer may be a fault of the server.

use std::{process::Stdio, time::Duration};

use commands::submit::Submission;
use domain::{kernel::Principal, kinds};
use serde_json::json;
use tokio::{net::TcpListener, process::Command};

use crate::world::{World, small};

#[tokio::test(flavor = "multi_thread")]
async fn no_route_answers_anything_with_a_server_error() {
    let fuzzer = std::env::var("SKYLEDGER_TEST_SCHEMATHESIS")
        .expect("SKYLEDGER_TEST_SCHEMATHESIS is not set: run the tests with ./test");
    let world = World::synced(small()).await;
    let issue = json!({"name": "fuzz", "role": "admin", "reach": "all"});
    let token = kinds::by_name("token").unwrap();
    let submission = Submission::new(Principal::system("test"), token, None, "issue", issue);
    let secret = world.ledger.submit(submission).await.unwrap().secret.unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service =
        adapters_http::Service::new(world.ledger.clone(), adapters_http::Options::default());
    let server = tokio::spawn(adapters_http::serve(
        listener,
        None,
        service,
        std::future::pending(),
        Duration::ZERO,
    ));
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(fuzzer)
        .arg("run")
        .arg(format!("http://{address}/openapi.json"))
        .arg("--header")
        .arg(format!("Authorization: Bearer {secret}"))
        .args(["--checks", "not_a_server_error,negative_data_rejection"])
        // A feed of events has no end, so it has no answer to wait for.
        .args(["--exclude-path-regex", ":watch$"])
        .args(["--phases", "examples,coverage,fuzzing"])
        .args(["--max-examples", "12", "--workers", "2", "--seed", "1"])
        .args(["--request-timeout", "20", "--max-time", "240", "--continue-on-failure"])
        .args(["--generation-database", "none", "--no-color"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    server.abort();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}\n{errors}");
    // It really went through the routes: a document that does not read would be no test either.
    assert!(text.contains("generated"), "{text}");
    println!("{}", text.lines().rev().take(15).collect::<Vec<_>>().join("\n"));
}
