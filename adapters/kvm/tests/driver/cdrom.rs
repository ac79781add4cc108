//! The disc in a server's drive, as QEMU has it: from the start, changed and taken out while the server
//! runs. Each step of a change fails once, and the agent dies once before it and once after it.

use std::{process::Command, time::Duration};

use adapters_kvm::driver::{Side, Step};
use commands::ports::DriverFault;
use domain::compute::server::{Order, parts::Image};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::host::{End, Host, Launch};

/// A file that says that it is a disc, with this in it.
fn disc(host: &Host, of: &Launch, content: &str) -> Image {
    let mut bytes = vec![0; 64 << 10];
    bytes[32_769..32_774].copy_from_slice(b"CD001");
    bytes[..content.len()].copy_from_slice(content.as_bytes());
    brought(host, of, &bytes)
}

fn brought(host: &Host, of: &Launch, bytes: &[u8]) -> Image {
    let sha256 = format!("{:x}", Sha256::digest(bytes));
    std::fs::write(host.data.path().join("uploads").join(&sha256), bytes).unwrap();
    let own = of.state.home.as_ref().unwrap().parts.image.clone().unwrap();
    let mut image = serde_json::to_value(own).unwrap();
    image["sha256"] = json!(sha256);
    image["format"] = json!("iso");
    image["size_mib"] = json!(1);
    serde_json::from_value(image).unwrap()
}

/// What QEMU says of a server's drive: the file in it; nothing of an empty one, none where it has none.
fn in_drive(host: &Host, server: &Launch) -> Option<String> {
    let socket = host.folder().join("socket");
    let line = format!(
        "timeout 60 virsh -q -c 'qemu+unix:///system?socket={}' qemu-monitor-command sk-{} \
         '{{\"execute\": \"query-block\"}}'",
        socket.display(),
        server.id
    );
    let done = Command::new("sh").args(["-c", &line]).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let answer: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    let blocks = answer["return"].as_array().unwrap();
    let drive = blocks.iter().find(|block| {
        let device = block["qdev"].as_str().unwrap_or_default();
        device.contains("sata")
    })?;
    let file = drive["inserted"]["file"].as_str().unwrap_or_default();
    Some(file.rsplit('/').next().unwrap().to_owned())
}

fn change(image: Option<&Image>) -> Order {
    Order::ChangeCdrom { image: image.cloned().map(Box::new) }
}

/// What a disc is called on its host.
fn named(server: &Launch, image: &Image) -> String {
    format!("{}.{}.iso", server.id, image.sha256)
}

#[tokio::test]
async fn a_disc_is_in_the_drive_is_changed_while_the_server_runs_and_leaves_nothing() {
    let Some(mut host) = Host::of_tests().await else { return };
    // Nobody waits for a guest here.
    host.stop_patience = Duration::from_millis(100);
    let server = host.launch(61, "sk-test-61", "#!/bin/sh\n");
    let discs = ["one", "two", "three", "four"].map(|content| disc(&host, &server, content));
    let server = server.with(|home| home["parts"]["cdrom"] = json!({"image": discs[0]}));
    let driver = host.driver().await;
    server.done(&driver, 1, Order::Launch {}).await;
    assert_eq!(in_drive(&host, &server), Some(named(&server, &discs[0])));

    // What is no disc is not put in.
    let no_disc = brought(&host, &server, &vec![0; 64 << 10]);
    let order = server.order(2, &change(Some(&no_disc)));
    let fault = driver.carry_out(&order).await.unwrap_err();
    assert!(matches!(&fault, DriverFault::Rejected(why) if why.contains("no disc")), "{fault}");
    assert_eq!(in_drive(&host, &server), Some(named(&server, &discs[0])));
    drop(driver);

    let mut number = 2;
    let ends = [(End::Fails, Side::Before), (End::Dies, Side::Before), (End::Dies, Side::After)];
    for step in [Step::Image, Step::Cdrom] {
        for (at, (end, side)) in ends.into_iter().enumerate() {
            number += 1;
            let task = server.order(number, &change(Some(&discs[at + 1])));
            host.cut(end, (step, side), &task).await;
            let driver = host.driver().await;
            driver.carry_out(&task).await.unwrap();
            let has = named(&server, &discs[at + 1]);
            assert_eq!(in_drive(&host, &server).as_ref(), Some(&has), "{step:?} {side:?}");
            assert_eq!(driver.census().await.unwrap().cdroms, [has].into(), "the others are gone");
        }
    }
    let driver = host.driver().await;
    server.done(&driver, number + 1, change(None)).await;
    assert_eq!(in_drive(&host, &server), Some(String::new()), "it is empty, and there");
    assert!(driver.census().await.unwrap().cdroms.is_empty());
    // From its next start on as well.
    let empty = server.clone().with(|home| home["parts"]["cdrom"] = json!({}));
    empty.done(&driver, number + 2, Order::Stop {}).await;
    empty.done(&driver, number + 3, change(Some(&discs[1]))).await;
    let with = server.clone().with(|home| home["parts"]["cdrom"] = json!({"image": discs[1]}));
    with.done(&driver, number + 4, Order::Start {}).await;
    assert_eq!(in_drive(&host, &server), Some(named(&server, &discs[1])));
    with.removed(&driver, number + 5).await;

    // One that was started without a drive has none while it runs.
    let plain = host.launch(62, "sk-test-61", "#!/bin/sh\n");
    plain.done(&driver, 1, Order::Launch {}).await;
    assert_eq!(in_drive(&host, &plain), None);
    let order = plain.order(2, &change(Some(&discs[0])));
    let fault = driver.carry_out(&order).await.unwrap_err();
    assert!(fault.to_string().contains("without a drive"), "{fault}");
    plain.removed(&driver, 3).await;
    assert!(driver.census().await.unwrap().cdroms.is_empty());
}
