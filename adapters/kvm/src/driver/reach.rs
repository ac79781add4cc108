//! Remote desktops of guests: their port, reached by an interface of ours on their bridge
//! ([`crate::network::reach`]).

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use commands::ports::{DriverFault, Pipe};
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, join},
    process::{Child, ChildStdout},
    time::timeout,
};
use uuid::Uuid;

use super::{Inner, console::carry, records::Port};
use crate::{
    network::{NetworkFault, Place, reach},
    tool::said,
};

/// The port of RDP (MS-RDPBCGR §2.1).
const PORT: u16 = 3_389;
/// Begins the name of our end of the interface.
const LINK: &str = "skr";
/// How many digits of a call's id are in that name.
const DIGITS: usize = 12;
/// How long the process may take to be in its namespace, and to say whether the port answers.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest line that it says, in bytes.
const LINE_MAX: usize = 1_000;

/// What `ip -j link` says of an interface.
#[derive(Default, Deserialize)]
struct Seen {
    #[serde(default)]
    master: String,
}

impl Inner {
    /// The remote desktop of a server that runs. `lent` is what its network has lent to reach it by IPv4.
    pub(super) async fn desktop(
        &self,
        call: Uuid,
        server: Uuid,
        lent: Option<Ipv4Addr>,
    ) -> Result<Pipe, DriverFault> {
        let record = self.records.read(server).await?.unwrap_or_default();
        let of_lent = |port: &&Port| {
            port.addresses
                .iter()
                .any(|net| lent.is_some_and(|lent| net.contains(&IpAddr::V4(lent))))
        };
        let ports = &record.ports;
        let port = ports.iter().find(of_lent).or_else(|| ports.first()).ok_or_else(|| {
            DriverFault::Rejected("the server has no interface of a network of ours".to_owned())
        })?;
        let addresses = port.addresses.iter().map(ipnet::IpNet::addr);
        let mut guest: Vec<IpAddr> = addresses.collect();
        guest.retain(|to| lent.is_some() || to.is_ipv6());
        guest.push(reach::link_local(port.mac.bytes()).into());
        let mac = reach::hardware(call.as_u128(), lent);
        let mut child = self.neighbour(&guest)?;
        let (Some(mut to), Some(mut from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(lost("it has no standard input"));
        };
        // A process of a test says something of its own before.
        while heard(&mut child, &mut from).await? != text(reach::HERE) {}
        let pid = child.id().ok_or_else(|| lost("it has ended"))?;
        self.plug_in(call, pid, mac, port).await?;
        let within = Place::of(format!("/proc/{pid}/ns/net"));
        let batch = reach::batch(mac, port.mtu, lent, &guest);
        let tool = within.tool("ip", ["-batch", "-"]).input(batch);
        tool.run().await.map_err(NetworkFault::from)?;
        to.write_all(b"\n").await.map_err(|fault| lost(&fault.to_string()))?;
        let answer = heard(&mut child, &mut from).await?;
        if answer != text(reach::OPEN) {
            return Err(DriverFault::Rejected(silent(&answer, lent, mac)));
        }
        Ok(carry(join(from, to), child))
    }

    /// The process, in a namespace of its own. It ends with what is given here.
    fn neighbour(&self, guest: &[IpAddr]) -> Result<Child, DriverFault> {
        let own = reacher(&self.options.reacher)?;
        let port = PORT.to_string();
        let guest: Vec<String> = guest.iter().map(IpAddr::to_string).collect();
        let before = ["--net", "--"].into_iter().chain(own.iter().map(String::as_str));
        let words = before.chain([port.as_str()]).chain(guest.iter().map(String::as_str));
        let tool = self.options.place.tool("unshare", words);
        Ok(tool.talk().map_err(NetworkFault::from)?)
    }

    /// Plugs an interface into the guest's bridge whose other end is the process's.
    async fn plug_in(
        &self,
        call: Uuid,
        pid: u32,
        mac: [u8; 6],
        port: &Port,
    ) -> Result<(), DriverFault> {
        let digits = call.simple().to_string();
        let link = format!("{LINK}{}", &digits[digits.len() - DIGITS..]);
        let (own, mac) = (reach::words(reach::on_the_bridge(mac)), reach::words(mac));
        let (place, mtu, bridge) = (&self.options.place, port.mtu, &port.bridge);
        let lines = [
            format!(
                "link add {link} mtu {mtu} address {own} type veth \
                 peer name {} address {mac} netns {pid}",
                reach::LINK
            ),
            format!("link set {link} addrgenmode none"),
            format!("link set {link} master {bridge}"),
            format!("link set {link} up"),
        ];
        for line in lines {
            let tool = place.tool("ip", line.split(' '));
            tool.run().await.map_err(NetworkFault::from)?;
        }
        let seen: Vec<Seen> = place.json("ip", &["-j", "link", "show", "dev", &link]).await?;
        let master = seen.into_iter().next().unwrap_or_default().master;
        if master != *bridge {
            return Err(
                NetworkFault::differs(format!("the bridge of {link}"), bridge, master).into()
            );
        }
        Ok(())
    }
}

/// What is run to reach a guest's port, in words.
fn reacher(given: &[String]) -> Result<Vec<String>, DriverFault> {
    if !given.is_empty() {
        return Ok(given.to_vec());
    }
    let program = std::env::current_exe()
        .map_err(|error| DriverFault::Transient(format!("this program's own file: {error}")))?;
    Ok(vec![program.display().to_string(), "reach".to_owned()])
}

fn lost(why: &str) -> DriverFault {
    DriverFault::Transient(format!("what reaches the server's port: {why}"))
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end().to_owned()
}

/// The next line that the process says. Where it says none, what it says on standard error tells why.
async fn heard(child: &mut Child, from: &mut ChildStdout) -> Result<String, DriverFault> {
    match line(from).await {
        Ok(line) => Ok(line),
        Err(what) => Err(lost(&format!("{what}: {}", said(child).await))),
    }
}

/// The next line; nothing behind it is read.
async fn line(from: &mut ChildStdout) -> Result<String, &'static str> {
    let read = async {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") && line.len() < LINE_MAX {
            line.push(from.read_u8().await?);
        }
        Ok::<_, std::io::Error>(text(&line))
    };
    match timeout(PATIENCE, read).await {
        Ok(line) => line.map_err(|_| "it has ended"),
        Err(_) => Err("it does not say anything"),
    }
}

/// What somebody is told when the port does not answer.
fn silent(said: &str, lent: Option<Ipv4Addr>, mac: [u8; 6]) -> String {
    let local = reach::link_local(mac);
    let from = lent.map_or(local.to_string(), |lent| format!("{lent} or {local}"));
    format!(
        "port {PORT} of the server does not answer ({said}): its system must have a remote desktop, and its \
         security groups and its own firewall must let TCP {PORT} in from {from}; for good that is its \
         network's addresses and fe80::/10"
    )
}
