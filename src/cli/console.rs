//! `skyledger console`: a server's serial line in this terminal, its screen for a viewer, either in a
//! browser, or its guest's remote desktop for a client of RDP.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::{Command as Process, Stdio},
};

use adapters_console::{
    client::{Client, Command},
    exit::Exit,
    names::resolve,
    terminal::{self, Socket},
};
use serde_json::json;
use tokio::net::TcpListener;

use super::{
    Failure,
    grammar::{Console, ConsoleType},
};
use crate::connection::Connection;

/// Where viewers of a screen connect to unless told otherwise, and clients of RDP. Theirs may be taken on
/// this machine.
const VNC: u16 = 5_900;
const RDP: u16 = 13_389;

pub(super) async fn run(options: &Console, connection: &Connection) -> Result<Exit, Failure> {
    let client = connection.client()?;
    let id = resolve(&client, "server", "servers", &options.of, None).await?;
    let what = if options.vnc { ConsoleType::Vnc } else { options.what };
    match (what, options.open) {
        (ConsoleType::Rdp, true) => {
            let why = "--open: the page shows screens and serial lines; connect a client of RDP";
            return Err(Failure::usage(why));
        }
        (ConsoleType::Serial, true) => {
            return in_browser(&client, &id, "serial", &options.of).await;
        }
        (ConsoleType::Vnc, true) => return in_browser(&client, &id, "vnc", &options.of).await,
        (ConsoleType::Rdp, false) => {
            return viewers(&client, &id, "rdp", options.listen, RDP).await;
        }
        (ConsoleType::Vnc, false) => {
            return viewers(&client, &id, "vnc", options.listen, VNC).await;
        }
        (ConsoleType::Serial, false) => {}
    }
    if options.listen.is_some() {
        return Err(Failure::usage("--listen: a serial line is shown here; add --type vnc or rdp"));
    }
    let socket = open(&client, &id, "serial").await?;
    eprintln!("connected to {}; Ctrl-] leaves", options.of);
    let why = terminal::serial(socket).await?;
    eprintln!();
    told(why.as_deref());
    Ok(Exit::Ok)
}

/// Serves viewers, one after the other.
async fn viewers(
    client: &Client,
    id: &str,
    console: &str,
    listen: Option<SocketAddr>,
    port: u16,
) -> Result<Exit, Failure> {
    let listen = listen.unwrap_or((Ipv4Addr::LOCALHOST, port).into());
    let listener = TcpListener::bind(listen).await?;
    eprintln!("{}", terminal::address_for_viewers(listener.local_addr()?));
    loop {
        let viewer = tokio::select! {
            accepted = listener.accept() => accepted?.0,
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Ok),
        };
        // A ticket is good for a minute: it is asked for when somebody is there.
        let socket = open(client, id, console).await?;
        tokio::select! {
            why = terminal::screen(socket, viewer) => told(why.as_deref()),
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Ok),
        }
    }
}

fn told(why: Option<&str>) {
    match why {
        None | Some("" | "caller-left") => eprintln!("left"),
        Some(why) => eprintln!("closed: {why}"),
    }
}

/// Says where the page is, with a ticket behind `#`, which browsers send to nobody, and has a browser go
/// there.
async fn in_browser(client: &Client, id: &str, console: &str, name: &str) -> Result<Exit, Failure> {
    let ticket = ticket(client, id, console).await?;
    let what = [("server", id), ("console", console), ("name", name), ("ticket", &ticket)];
    let address = client.page_of_consoles(&what);
    println!("{address}");
    let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let mut browser = Process::new(opener);
    browser.arg(&address).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match browser.status() {
        Ok(status) if status.success() => eprintln!("opened in a browser"),
        _ => eprintln!("open it in a browser within a minute; it is good for one use"),
    }
    Ok(Exit::Ok)
}

async fn ticket(client: &Client, id: &str, console: &str) -> Result<String, Failure> {
    let command = Command {
        plural: "servers".to_owned(),
        id: Some(id.to_owned()),
        verb: "open-console".to_owned(),
        body: json!({"console": console}),
        ..Command::default()
    };
    let answer = client.submit(&command).await?;
    let ticket = answer.body["secret"].as_str();
    let ticket = ticket.ok_or_else(|| Failure::new(Exit::Fault, "no ticket came"))?;
    Ok(ticket.to_owned())
}

async fn open(client: &Client, id: &str, console: &str) -> Result<Socket, Failure> {
    let ticket = ticket(client, id, console).await?;
    let protocols = format!("skyledger.console, skyledger.ticket.{ticket}");
    Ok(client.socket(&format!("/v1/servers/{id}/console"), &protocols).await?)
}
