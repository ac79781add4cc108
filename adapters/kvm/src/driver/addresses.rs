//! Other addresses of an interface of a server that is there. In a guest that runs they are set through its
//! agent, and asked of it afterwards.
//!
//! ```text
//!   both are allowed on the host ─► the guest is told, and asked ─► its seed has them ─► the new alone are allowed
//!                                        │ no
//!                                        ▼
//!                    the guest has its old ones again, and they alone are allowed
//! ```
//!
//! Everything is looked at first, so an order that was cut off anywhere goes on from what is there. Before
//! the host allows the new ones the guest was told nothing: an agent that does not answer then is a no.
//! Afterwards it may have been told, and is asked again until it answers or somebody gives it up. What is
//! set here lasts until the guest restarts; from then on counts its seed, which cloud-init reads at every
//! boot.

use std::{net::IpAddr, sync::Arc, time::Duration};

use adapters_libvirt::{Code, Connection, Domain, Fault};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use commands::ports::{DriverFault, Report};
use domain::{
    compute::{
        server::{addresses::Found, parts::Nic},
        userdata::nocloud::metric,
    },
    network::mac::Mac,
};
use ipnet::IpNet;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{Inner, Step, Work, fault::libvirt, find, state, wanted};
use crate::{network::Interface, storage::seed};

/// How long the agent may take for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a command in the guest may take.
const COMMAND_PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks whether it has ended: nothing tells of it.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Most that is told of what a guest says, in characters.
const SAID_CHARS_MAX: usize = 300;

impl Inner {
    /// The interface has these addresses, and none that it had before; the report when it cannot have them.
    pub(super) async fn change_addresses(
        &self,
        work: &Work<'_>,
        id: Uuid,
        found: &Found,
    ) -> Result<Option<Report>, DriverFault> {
        let (at, nic) = own(work, id)?;
        let begun = self.is_begun(work, nic, found).await?;
        let guest = self.guest(work, nic.mac).await?;
        if !begun
            && let Some(guest) = &guest
            && let Err(trouble) = guest.interface().await
        {
            let why = trouble.no()?;
            // Of an order that was cut off while the server was stopped.
            self.rewrite_seed(work, id, &nic.addresses, &nic.gateways).await?;
            return Ok(Some(self.kept(work, why).await?));
        }
        let mut both = nic.addresses.clone();
        both.extend(found.new_to(nic));
        let Some(guest) = guest else {
            // It is started with them.
            let rewrite = self.rewrite_seed(work, id, &found.addresses, &found.gateways);
            self.step(Step::Seed, work.server, rewrite).await?;
            let guard = self.allow(work, id, &found.addresses);
            return self.step(Step::Guard, work.server, guard).await.map(|()| None);
        };
        self.step(Step::Network, work.server, self.allow(work, id, &both)).await?;
        let set = guest.set(at, &nic.addresses, &found.addresses, &found.gateways);
        if let Err(why) = self.step(Step::Addresses, work.server, set).await? {
            let back = guest.set(at, &found.addresses, &nic.addresses, &nic.gateways);
            // Who does nothing that it is told has what it had all the same.
            if let Err(no) = back.await?
                && guest.differs(&found.addresses, &nic.addresses).await?
            {
                let why = format!("{why}; and it does not have what it had: {no}");
                return Err(DriverFault::Rejected(why));
            }
            self.rewrite_seed(work, id, &nic.addresses, &nic.gateways).await?;
            self.allow(work, id, &nic.addresses).await?;
            return Ok(Some(self.kept(work, why).await?));
        }
        let rewrite = self.rewrite_seed(work, id, &found.addresses, &found.gateways);
        self.step(Step::Seed, work.server, rewrite).await?;
        let guard = self.allow(work, id, &found.addresses);
        self.step(Step::Guard, work.server, guard).await.map(|()| None)
    }

    /// The interface has what it had. A guest that does not hear it, or does not do it, may use no other
    /// addresses than those.
    pub(super) async fn restore_addresses(
        &self,
        work: &Work<'_>,
        id: Uuid,
        found: &Found,
    ) -> Result<(), DriverFault> {
        let (at, nic) = own(work, id)?;
        if let Some(guest) = self.guest(work, nic.mac).await? {
            let set = guest.try_set(at, &found.addresses, &nic.addresses, &nic.gateways);
            match set.await.map_err(Trouble::no) {
                Ok(()) => {}
                Err(Ok(why)) => tracing::warn!(server = %work.server, why, "a guest is not told"),
                Err(Err(fault)) => return Err(fault),
            }
        }
        let rewrite = self.rewrite_seed(work, id, &nic.addresses, &nic.gateways);
        self.step(Step::Seed, work.server, rewrite).await?;
        let guard = self.allow(work, id, &nic.addresses);
        self.step(Step::Guard, work.server, guard).await
    }

    /// Whether the host allows the new ones already: then the guest may have been told.
    async fn is_begun(
        &self,
        work: &Work<'_>,
        nic: &Nic,
        found: &Found,
    ) -> Result<bool, DriverFault> {
        let record = self.records.read(work.server).await?.unwrap_or_default();
        let tap = wanted::tap(nic.id);
        let mut allowed = record.ports.iter().filter(|port| port.tap == tap);
        let new = found.new_to(nic);
        Ok(allowed.any(|port| port.addresses.iter().any(|net| new.contains(net))))
    }

    /// The guest, if it runs.
    async fn guest(&self, work: &Work<'_>, mac: Mac) -> Result<Option<Guest>, DriverFault> {
        let wire = self.wire.get().await?;
        let domain = find(&wire, work.server).await?;
        let domain = domain.ok_or_else(|| DriverFault::NotFound(wanted::name(work.server)))?;
        let runs = state(&wire, &domain).await?.is_active();
        Ok(runs.then_some(Guest { wire, domain, mac }))
    }

    /// The interface may use these addresses on its network, and no others.
    async fn allow(
        &self,
        work: &Work<'_>,
        id: Uuid,
        addresses: &[IpNet],
    ) -> Result<(), DriverFault> {
        let mut nics = work.home.parts.nics.clone();
        for nic in nics.iter_mut().filter(|nic| nic.id == id) {
            nic.addresses = addresses.to_vec();
        }
        let ports = wanted::ports(nics.iter(), work.home);
        self.plugs.plug(&self.records, work.server, ports).await
    }

    /// What the server reads when it is started has these addresses, and everything else as it was.
    async fn rewrite_seed(
        &self,
        work: &Work<'_>,
        id: Uuid,
        addresses: &[IpNet],
        gateways: &[IpAddr],
    ) -> Result<(), DriverFault> {
        let mut home = work.home.clone();
        for nic in home.parts.nics.iter_mut().filter(|nic| nic.id == id) {
            (nic.addresses, nic.gateways) = (addresses.to_vec(), gateways.to_vec());
        }
        let documents = wanted::documents(work.server, &home, None)?;
        let path = self.layout.seed(work.server);
        Ok(seed::replace(&path, "network-config", &documents.network_config).await?)
    }

    async fn kept(&self, work: &Work<'_>, reason: String) -> Result<Report, DriverFault> {
        let seen = self.seen(work.server, work.home).await?;
        let body = json!({"number": work.number, "reason": reason, "seen": seen});
        Ok(Report { verb: "confirm-kept-addresses", body })
    }
}

/// An interface of a server, and which of its interfaces it is.
fn own<'a>(work: &Work<'a>, id: Uuid) -> Result<(usize, &'a Nic), DriverFault> {
    let mut nics = work.home.parts.nics.iter().enumerate();
    let found = nics.find(|(_, nic)| nic.id == id);
    found.ok_or_else(|| DriverFault::Rejected("it has no such interface".to_owned()))
}

/// Why a guest has not done what it was told.
enum Trouble {
    /// Its agent does not answer: whether it was done is not known.
    Deaf(String),
    /// It says no.
    No(String),
    /// Something else is wrong.
    Fault(DriverFault),
}

impl Trouble {
    /// The guest's no; for one that was told nothing yet, silence is one.
    fn no(self) -> Result<String, DriverFault> {
        match self {
            Self::Deaf(why) | Self::No(why) => Ok(why),
            Self::Fault(fault) => Err(fault),
        }
    }
}

/// A guest, spoken to through its agent.
struct Guest {
    wire: Arc<Connection>,
    domain: Domain,
    /// The interface that is meant: names of interfaces are the guest's affair.
    mac: Mac,
}

/// An interface as the guest has it.
#[derive(Debug, PartialEq)]
struct Inside {
    name: Interface,
    addresses: Vec<IpNet>,
}

impl Guest {
    async fn ask(&self, command: Value) -> Result<Value, Trouble> {
        let answer = match self.wire.agent(&self.domain, &command.to_string(), PATIENCE).await {
            Ok(answer) => answer.unwrap_or_default(),
            Err(fault) if fault.is(Code::AGENT_UNRESPONSIVE) => {
                let why =
                    "the guest agent does not answer: qemu-guest-agent must run in the server";
                return Err(Trouble::Deaf(why.to_owned()));
            }
            Err(Fault::Refused { code, message, .. }) if code != Code::OPERATION_INVALID => {
                return Err(Trouble::No(format!("the guest agent says: {}", cut(&message))));
            }
            Err(fault) => return Err(Trouble::Fault(libvirt(fault))),
        };
        let answer: Value = serde_json::from_str(&answer).map_err(|fault| {
            Trouble::Fault(DriverFault::Unexpected(format!("the guest agent: {fault}")))
        })?;
        Ok(answer["return"].clone())
    }

    async fn interface(&self) -> Result<Inside, Trouble> {
        let all = self.ask(json!({"execute": "guest-network-get-interfaces"})).await?;
        inside(&all, self.mac).map_err(Trouble::No)
    }

    /// As [`Self::try_set`]; the guest's no is not a fault, its silence is one that may pass.
    async fn set(
        &self,
        at: usize,
        from: &[IpNet],
        to: &[IpNet],
        gateways: &[IpAddr],
    ) -> Result<Result<(), String>, DriverFault> {
        match self.try_set(at, from, to, gateways).await {
            Ok(()) => Ok(Ok(())),
            Err(Trouble::No(why)) => Ok(Err(why)),
            Err(Trouble::Deaf(why)) => Err(DriverFault::Transient(why)),
            Err(Trouble::Fault(fault)) => Err(fault),
        }
    }

    /// Has it have these addresses in place of those, and asks whether they are there. What is so already
    /// is left.
    async fn try_set(
        &self,
        at: usize,
        from: &[IpNet],
        to: &[IpNet],
        gateways: &[IpAddr],
    ) -> Result<(), Trouble> {
        let Inside { name, addresses } = self.interface().await?;
        let (code, said) = self.run(&script(&name, at, &addresses, (from, to), gateways)).await?;
        if code != 0 {
            return Err(Trouble::No(format!("the guest says: {}", cut(&said))));
        }
        compare(&self.interface().await?.addresses, from, to).map_err(Trouble::No)
    }

    /// Whether it has something else than these addresses in place of those.
    async fn differs(&self, from: &[IpNet], to: &[IpNet]) -> Result<bool, DriverFault> {
        match self.interface().await {
            Ok(is) => Ok(compare(&is.addresses, from, to).is_err()),
            Err(Trouble::No(_)) => Ok(true),
            Err(Trouble::Deaf(why)) => Err(DriverFault::Transient(why)),
            Err(Trouble::Fault(fault)) => Err(fault),
        }
    }

    /// Runs a script in the guest: its exit code, and what it wrote.
    async fn run(&self, script: &str) -> Result<(i64, String), Trouble> {
        let arguments = json!({"path": "/bin/sh", "arg": ["-c", script], "capture-output": true});
        let begun = self.ask(json!({"execute": "guest-exec", "arguments": arguments})).await?;
        let pid = json!({"pid": begun["pid"]});
        let until = Instant::now() + COMMAND_PATIENCE;
        loop {
            let ask = json!({"execute": "guest-exec-status", "arguments": pid});
            let status = self.ask(ask).await?;
            if status["exited"] == true {
                let text = |key: &str| {
                    let bytes = BASE64_STANDARD.decode(status[key].as_str().unwrap_or_default());
                    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
                };
                let said = format!("{} {}", text("err-data"), text("out-data"));
                return Ok((status["exitcode"].as_i64().unwrap_or(-1), said));
            }
            if Instant::now() >= until {
                let why = "the guest does not come to an end with its addresses";
                return Err(Trouble::Deaf(why.to_owned()));
            }
            sleep(LOOK_AGAIN).await;
        }
    }
}

/// Whether what is there is these addresses in place of those; others are the guest's own affair.
fn compare(is: &[IpNet], from: &[IpNet], to: &[IpNet]) -> Result<(), String> {
    if let Some(net) = to.iter().find(|net| !is.contains(net)) {
        return Err(format!("the guest was told to have {net}, and has not"));
    }
    match from.iter().find(|net| !to.contains(net) && is.contains(net)) {
        Some(net) => Err(format!("the guest was told to give up {net}, and has it")),
        None => Ok(()),
    }
}

/// What a guest says, on one line.
fn cut(said: &str) -> String {
    let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
    words.chars().take(SAID_CHARS_MAX).collect()
}

/// The interface with this hardware address, of those that a guest says it has. Nothing of what it says is
/// trusted to be a name or an address.
fn inside(all: &Value, mac: Mac) -> Result<Inside, String> {
    let is = |one: &&Value| {
        let own = one["hardware-address"].as_str().and_then(|it| it.parse::<Mac>().ok());
        own == Some(mac)
    };
    let found = all.as_array().and_then(|all| all.iter().find(is));
    let found = found.ok_or_else(|| format!("the guest has no interface {mac}"))?;
    let name = found["name"].as_str().and_then(|name| name.parse().ok());
    let name = name.ok_or_else(|| format!("the guest's name of {mac} is none"))?;
    let net = |one: &Value| {
        let address: IpAddr = one["ip-address"].as_str()?.parse().ok()?;
        IpNet::new(address, one["prefix"].as_u64()?.try_into().ok()?).ok()
    };
    let addresses = found["ip-addresses"].as_array().into_iter().flatten().filter_map(net);
    Ok(Inside { name, addresses: addresses.collect() })
}

/// What is run in the guest. Old addresses go first: with the first of a subnet Linux takes the others away,
/// and with the last the routes.
fn script(
    name: &Interface,
    at: usize,
    is: &[IpNet],
    (from, to): (&[IpNet], &[IpNet]),
    gateways: &[IpAddr],
) -> String {
    let mut lines =
        vec!["set -e".to_owned(), "PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
    for net in from.iter().filter(|net| !to.contains(net) && is.contains(net)) {
        lines.push(format!("ip addr del {net} dev {name}"));
    }
    for net in to.iter().filter(|net| !is.contains(net)) {
        let broadcast = if net.addr().is_ipv4() { " broadcast +" } else { "" };
        lines.push(format!("ip addr add {net}{broadcast} dev {name}"));
    }
    lines.push(format!("ip link set dev {name} up"));
    for gateway in gateways {
        let family = if gateway.is_ipv4() { "-4" } else { "-6" };
        let route = format!("default via {gateway} dev {name}");
        lines.push(format!(
            "ip {family} route | grep -q '^{route}' || \
             ip {family} route add {route} metric {} onlink",
            metric(at),
        ));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(all: &[&str]) -> Vec<IpNet> {
        all.iter().map(|net| net.parse().unwrap()).collect()
    }

    #[test]
    fn a_script_does_what_is_missing_and_nothing_else() {
        let from = nets(&["10.0.0.4/24", "2001:db8::4/64"]);
        let to = nets(&["10.0.0.5/24", "2001:db8::4/64"]);
        let gateways = ["10.0.0.1".parse().unwrap(), "fe80::1".parse().unwrap()];
        let name = "eth0".parse().unwrap();
        let begin = "set -e\nPATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin\n";
        let whole = script(&name, 1, &from, (&from, &to), &gateways);
        let expected = format!(
            "{begin}ip addr del 10.0.0.4/24 dev eth0\n\
             ip addr add 10.0.0.5/24 broadcast + dev eth0\nip link set dev eth0 up\n\
             ip -4 route | grep -q '^default via 10.0.0.1 dev eth0' || \
             ip -4 route add default via 10.0.0.1 dev eth0 metric 200 onlink\n\
             ip -6 route | grep -q '^default via fe80::1 dev eth0' || \
             ip -6 route add default via fe80::1 dev eth0 metric 200 onlink"
        );
        assert_eq!(whole, expected);
        let done = script(&name, 0, &to, (&from, &to), &[]);
        assert_eq!(done, format!("{begin}ip link set dev eth0 up"));
        // Back again from anywhere between.
        let back = script(&name, 0, &nets(&["2001:db8::4/64"]), (&to, &from), &[]);
        let add = "ip addr add 10.0.0.4/24 broadcast + dev eth0\n";
        assert_eq!(back, format!("{begin}{add}ip link set dev eth0 up"));
    }

    #[test]
    fn what_a_guest_says_is_read_and_not_believed() {
        let mac: Mac = "52:54:00:00:00:01".parse().unwrap();
        let says = |name: &str| {
            json!([
                {"name": "lo"},
                {"name": name, "hardware-address": "52:54:00:00:00:01", "ip-addresses": [
                    {"ip-address": "10.0.0.4", "prefix": 24, "ip-address-type": "ipv4"},
                    {"ip-address": "fe80::1", "prefix": 64}, {"ip-address": "nothing"},
                ]},
            ])
        };
        let read = inside(&says("ens3"), mac).unwrap();
        assert_eq!(read.addresses, nets(&["10.0.0.4/24", "fe80::1/64"]));
        assert!(inside(&says("eth0; reboot"), mac).unwrap_err().contains("is none"));
        let other = "52:54:00:00:00:02".parse().unwrap();
        assert!(inside(&says("ens3"), other).unwrap_err().contains("no interface"));
        assert_eq!(cut(" no\n such\tdevice "), "no such device");
    }
}
