//! What is done with a server that is there: it is held and let go on, sized otherwise, given
//! passwords, and rescued.
//!
//! A rescue runs a machine that libvirt is told of for this one time, beside the one that it knows:
//! whatever becomes of it, the next start is of the server itself. Its kernel and what that unpacks are
//! looked at before anything is stopped.

use std::time::Duration;

use adapters_libvirt::{
    Affects, Code, Connection, Domain, Fault, State,
    description::{Description, DirectKernel},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use commands::ports::DriverFault;
use domain::compute::{
    placement::Placement,
    server::{home::Home, rescue::RescueSystem},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    Inner, Step, Work, disks::described, fault::libvirt, find, power_off, start, state, wanted,
};

/// How long the agent of a guest that runs may take for an answer.
const AGENT_PATIENCE: Duration = Duration::from_secs(10);
/// How long a guest may take to see what was added to its machine.
const SEEN_PATIENCE: Duration = Duration::from_secs(20);
/// How long the small system of a rescue may take until its agent answers.
const RESCUE_PATIENCE: Duration = Duration::from_mins(3);
/// Between two questions whether it does: nothing tells of it.
const ASK_AGAIN: Duration = Duration::from_millis(200);

impl Inner {
    /// Holds a server, if it runs.
    pub(super) async fn suspend(&self, work: &Work<'_>) -> Result<(), DriverFault> {
        let hold = async {
            let wire = self.wire.get().await?;
            let Some(domain) = find(&wire, work.server).await? else { return Ok(()) };
            match state(&wire, &domain).await? {
                State::Running | State::Blocked => wire.suspend(&domain).await.map_err(libvirt),
                _ => Ok(()),
            }
        };
        self.step(Step::Suspend, work.server, hold).await
    }

    /// Lets a server go on, if it is held.
    pub(super) async fn resume(&self, work: &Work<'_>) -> Result<(), DriverFault> {
        let go_on = async {
            let wire = self.wire.get().await?;
            let Some(domain) = find(&wire, work.server).await? else { return Ok(()) };
            match state(&wire, &domain).await? {
                State::Paused => wire.resume(&domain).await.map_err(libvirt),
                _ => Ok(()),
            }
        };
        self.step(Step::Resume, work.server, go_on).await
    }

    /// Tells libvirt of a server of another size; one that runs grows first.
    pub(super) async fn resize(
        &self,
        work: &Work<'_>,
        size: (u32, u64),
        placement: &Placement,
    ) -> Result<(), DriverFault> {
        if work.home.adopted.is_some() {
            return self.resize_adopted(work, size).await;
        }
        let mut home: Home = work.home.clone();
        (home.spec.vcpus, home.spec.memory_mib) = size;
        *home.placement = placement.clone();
        let machine = self.describe(&Work { home: &home, ..*work }).await?;
        let wire = self.wire.get().await?;
        if let Some(domain) = find(&wire, work.server).await?
            && state(&wire, &domain).await?.is_active()
        {
            self.step(Step::Grow, work.server, grow(&wire, &domain, size)).await?;
        }
        self.step(Step::Define, work.server, self.define(&wire, &machine)).await.map(drop)
    }

    /// Sets a password of somebody inside a server.
    pub(super) async fn set_password(
        &self,
        work: &Work<'_>,
        user: &str,
    ) -> Result<(), DriverFault> {
        let set = async {
            let wire = self.wire.get().await?;
            let domain = find(&wire, work.server).await?;
            let domain = domain.ok_or_else(|| DriverFault::NotFound(wanted::name(work.server)))?;
            ask_password(&wire, &domain, user, work.password()?).await
        };
        self.step(Step::Password, work.server, set).await
    }

    /// Runs a small system in memory in place of what a server's disks have.
    pub(super) async fn rescue(
        &self,
        work: &Work<'_>,
        system: &RescueSystem,
    ) -> Result<(), DriverFault> {
        let (server, password) = (work.server, work.password()?);
        for file in [&system.kernel, &system.initramfs] {
            if !tokio::fs::metadata(file).await.is_ok_and(|file| file.is_file()) {
                let why =
                    format!("the rescue system's {file} is not on the host; nothing was stopped");
                return Err(DriverFault::Rejected(why));
            }
        }
        let kernel = DirectKernel {
            kernel: system.kernel.clone(),
            initrd: system.initramfs.clone(),
            command_line: system.command_line.clone(),
        };
        let machine = self.describe(work).await?.rescued(kernel);
        let wire = self.wire.get().await?;
        let domain = match find(&wire, server).await? {
            Some(domain) if is_rescued(&wire, &domain, Some(work.number)).await? => domain,
            there => {
                if let Some(domain) = there {
                    self.step(Step::Stop, server, power_off(&wire, &domain)).await?;
                }
                self.let_companions_go(server).await?;
                self.plug(work).await?;
                self.activate(work).await?;
                let run = async { wire.run(&machine.xml()).await.map_err(libvirt) };
                self.step(Step::Rescue, server, run).await?
            }
        };
        self.limit_new(work).await?;
        let set = async {
            reach(&wire, &domain).await?;
            ask_password(&wire, &domain, "root", password).await
        };
        self.step(Step::Password, server, set).await
    }

    /// Ends a rescue, if there is one, and starts the server itself where it is to run.
    pub(super) async fn leave_rescue(
        &self,
        work: &Work<'_>,
        start: bool,
    ) -> Result<(), DriverFault> {
        let wire = self.wire.get().await?;
        if let Some(domain) = find(&wire, work.server).await?
            && is_rescued(&wire, &domain, None).await?
        {
            self.step(Step::Stop, work.server, power_off(&wire, &domain)).await?;
        }
        if work.home.adopted.is_some() {
            return if start { self.start_adopted(work).await } else { Ok(()) };
        }
        let machine = self.describe(work).await?;
        if start {
            self.plug(work).await?;
            return self.run(work, &machine).await;
        }
        // It may have been nothing but the rescue: what is seen of it is what libvirt knows.
        self.step(Step::Define, work.server, self.define(&wire, &machine)).await.map(drop)
    }
}

impl<'a> Work<'a> {
    fn password(&self) -> Result<&'a str, DriverFault> {
        self.password.ok_or_else(|| DriverFault::Unexpected("no password came along".to_owned()))
    }
}

/// Whether what runs is a rescue; that of an order when one is named.
async fn is_rescued(
    wire: &Connection,
    domain: &Domain,
    order: Option<u64>,
) -> Result<bool, DriverFault> {
    if !state(wire, domain).await?.is_active() {
        return Ok(false);
    }
    let xml = wire.xml(domain, Affects::Live).await.map_err(libvirt)?;
    let is = Description::read(&xml).map_err(|no| DriverFault::Unexpected(no.to_string()))?;
    Ok(is.kernel.is_some() && order.is_none_or(|order| order == is.position))
}

/// Waits until the agent of a system that has just been started answers.
async fn reach(wire: &Connection, domain: &Domain) -> Result<(), DriverFault> {
    let until = Instant::now() + RESCUE_PATIENCE;
    // One whose answer was lost may be held.
    start(wire, domain).await?;
    loop {
        let asked = wire.agent(domain, r#"{"execute":"guest-ping"}"#, AGENT_PATIENCE).await;
        match asked {
            Ok(_) => return Ok(()),
            Err(fault) if fault.is(Code::AGENT_UNRESPONSIVE) && Instant::now() < until => {
                if !state(wire, domain).await?.is_active() {
                    let why = "the rescue system has stopped by itself: look at its console";
                    return Err(DriverFault::Rejected(why.to_owned()));
                }
                sleep(ASK_AGAIN).await;
            }
            Err(fault) if fault.is(Code::AGENT_UNRESPONSIVE) => {
                let why = "no guest agent comes up in the rescue system";
                return Err(DriverFault::Rejected(why.to_owned()));
            }
            Err(fault) => return Err(libvirt(fault)),
        }
    }
}

/// A machine that runs has so many processors and so much memory, in MiB, from now on; it is asked
/// whether it has. The guest is told to use them, as far as its agent answers: many do by themselves.
async fn grow(
    wire: &Connection,
    domain: &Domain,
    (vcpus, memory_mib): (u32, u64),
) -> Result<(), DriverFault> {
    let (is, wanted_kib) = (described(wire, domain, Affects::Live).await?, memory_mib << 10);
    if is.vcpus < vcpus {
        wire.set_vcpus(domain, vcpus, Affects::Live).await.map_err(libvirt)?;
    }
    if is.memory_kib < wanted_kib {
        let memory = memory_device(wanted_kib - is.memory_kib);
        wire.attach(domain, &memory, Affects::Live).await.map_err(libvirt)?;
    }
    let is = described(wire, domain, Affects::Live).await?;
    if (is.vcpus, is.memory_kib) != (vcpus, wanted_kib) {
        let what = format!("the machine has {} CPUs and {} KiB", is.vcpus, is.memory_kib);
        return Err(DriverFault::Unexpected(what));
    }
    if let Err(fault) = bring_online(wire, domain, (vcpus, memory_mib)).await {
        tracing::info!(server = %domain.uuid, %fault, "the guest is not told of what was added");
    }
    Ok(())
}

/// Has the guest use so many processors and so much memory. It sees what was added a little later than its
/// machine has it, and a guest that never does is left alone.
async fn bring_online(wire: &Connection, domain: &Domain, size: (u32, u64)) -> Result<(), Fault> {
    let ask = async |what: &str, arguments: Value| {
        let command = json!({"execute": what, "arguments": arguments}).to_string();
        let answer = wire.agent(domain, &command, AGENT_PATIENCE).await?;
        let answer: Value = serde_json::from_str(&answer.unwrap_or_default()).unwrap_or_default();
        Ok::<Value, Fault>(answer["return"].clone())
    };
    let until = Instant::now() + SEEN_PATIENCE;
    loop {
        let mut seen = Vec::with_capacity(2);
        for (list, set, name, id) in [
            ("guest-get-vcpus", "guest-set-vcpus", "vcpus", "logical-id"),
            ("guest-get-memory-blocks", "guest-set-memory-blocks", "mem-blks", "phys-index"),
        ] {
            let all = ask(list, json!({})).await?;
            let all = all.as_array().map(Vec::as_slice).unwrap_or_default();
            seen.push(all.len() as u64);
            let off = all.iter().filter(|one| one["online"] == false);
            let on: Vec<Value> = off.map(|one| json!({id: one[id], "online": true})).collect();
            if !on.is_empty() {
                ask(set, json!({name: on})).await?;
            }
        }
        let block = ask("guest-get-memory-block-info", json!({})).await?;
        let memory = block["size"].as_u64().unwrap_or_default().saturating_mul(seen[1]);
        if seen[0] >= u64::from(size.0) && memory >= size.1 << 20 {
            return Ok(());
        }
        if Instant::now() >= until {
            tracing::info!(server = %domain.uuid, "the guest does not see all that was added");
            return Ok(());
        }
        sleep(ASK_AGAIN).await;
    }
}

/// Memory that is added to a guest's first cell, as libvirt is told of it.
fn memory_device(kib: u64) -> String {
    format!(
        "<memory model='dimm'><target><size unit='KiB'>{kib}</size><node>0</node></target></memory>"
    )
}

async fn ask_password(
    wire: &Connection,
    domain: &Domain,
    user: &str,
    password: &str,
) -> Result<(), DriverFault> {
    let command = json!({
        "execute": "guest-set-user-password",
        "arguments": {
            "username": user, "password": BASE64_STANDARD.encode(password), "crypted": false,
        },
    });
    match wire.agent(domain, &command.to_string(), AGENT_PATIENCE).await {
        Ok(_) => Ok(()),
        Err(fault) if fault.is(Code::AGENT_UNRESPONSIVE) => Err(DriverFault::Transient(
            "the guest agent does not answer: qemu-guest-agent must run in the server".to_owned(),
        )),
        // The guest's own no, as that there is no such user. What was asked is not part of it.
        Err(Fault::Refused { code, message, .. }) if code != Code::OPERATION_INVALID => Err(
            DriverFault::Rejected(format!("the guest agent sets no password of {user}: {message}")),
        ),
        Err(fault) => Err(libvirt(fault)),
    }
}
