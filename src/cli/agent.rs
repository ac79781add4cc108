//! `skyledger agent`: works for one host until it is told to stop.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use adapters_agent::{Agent, AgentFault, ConnectFault, EpochFile, HttpLine, LineFault, Options};
use adapters_console::exit::Exit;
use adapters_http::problem;
use adapters_kvm::{
    check::{Finding, Standing},
    driver::Reached,
};

use super::{Failure, grammar::AgentOptions, runtime};
use crate::{
    compose::signalled,
    config::Config,
    connection::Connection,
    edge::SystemClock,
    local_host::{self, Libvirt, Means},
    telemetry,
};

/// The longest pause between two looks for a server that does not answer yet.
const PAUSE_MAX: Duration = Duration::from_secs(20);

impl From<LineFault> for Failure {
    fn from(fault: LineFault) -> Self {
        let exit = match &fault {
            LineFault::Broken(_) => Exit::Fault,
            LineFault::Refused { code, .. } => refused(code),
            LineFault::Stale(_) => Exit::Stale,
        };
        Self::new(exit, fault.to_string())
    }
}

impl From<AgentFault> for Failure {
    fn from(fault: AgentFault) -> Self {
        let exit = match &fault {
            AgentFault::Epoch(_) | AgentFault::Fenced(_) => Exit::Stale,
            AgentFault::Refused { code, .. } => refused(code),
        };
        Self::new(exit, fault.to_string())
    }
}

fn refused(code: &str) -> Exit {
    problem::code(code).map_or(Exit::Refused, |code| Exit::of_status(code.status))
}

pub(super) fn run(options: AgentOptions, connection: &Connection) -> Result<Exit, Failure> {
    let defaults = Config::default();
    let config = Config {
        log: options.log.clone().unwrap_or(defaults.log),
        log_format: options.log_format.unwrap_or(defaults.log_format),
        ..Config::default()
    };
    let _telemetry = telemetry::start(&config)?;
    runtime()?.block_on(work(options, connection))
}

async fn work(options: AgentOptions, connection: &Connection) -> Result<Exit, Failure> {
    if options.check {
        return check(&options).await;
    }
    let mut stop = std::pin::pin!(signalled());
    let line = {
        let mut connecting = std::pin::pin!(connect(&options, connection));
        tokio::select! {
            line = &mut connecting => line?,
            _ = &mut stop => return Ok(Exit::Ok),
        }
    };
    let host = line.host();
    let means = if options.simulated {
        Means::Simulated { pause: Duration::from_millis(options.simulated_pause_ms) }
    } else {
        Means::Libvirt(libvirt(&options))
    };
    let local = local_host::reach(&means, host, &options.data).await?;
    let epoch_file = Some(EpochFile::within(&options.data).map_err(AgentFault::Epoch)?);
    tracing::info!(%host, "the agent begins");
    let own = Options { epoch_file, ..Options::default() };
    let agent = Agent::new(Arc::new(line), local, Arc::new(SystemClock), own);
    let stopped = async {
        let why = stop.await;
        tracing::info!(why, "stopping");
    };
    agent.run(stopped).await?;
    Ok(Exit::Ok)
}

fn libvirt(options: &AgentOptions) -> Libvirt {
    Libvirt {
        socket: options.libvirt.clone(),
        labels: options.label.iter().cloned().collect(),
        images_max_bytes: options.images_max_gib.map(|gib| u64::from(gib) << 30),
        storages: options.storage.clone(),
        volume_groups: options.volume_group.clone(),
        reached: reached(options),
    }
}

/// Says what this machine has of all that servers need, and what to do about the rest.
async fn check(options: &AgentOptions) -> Result<Exit, Failure> {
    let found = adapters_kvm::check::check(&libvirt(options).options(&options.data)?).await;
    let width = found.iter().map(|one| one.what.len()).max().unwrap_or_default();
    let mut lines = String::new();
    for Finding { what, standing, detail } in &found {
        let _ = writeln!(lines, "{standing:<7}  {what:<width$}  {detail}");
    }
    print!("{lines}");
    let missing = found.iter().any(|one| one.standing == Standing::Missing);
    Ok(if missing { Exit::Fault } else { Exit::Ok })
}

/// How other hosts reach this one, where it takes servers that run there.
fn reached(options: &AgentOptions) -> Option<Reached> {
    let libvirt = options.migration_uri.clone()?;
    Some(Reached { libvirt, memory: options.migration_address.clone() })
}

/// The line to the server, as soon as there is one.
async fn connect(options: &AgentOptions, connection: &Connection) -> Result<HttpLine, Failure> {
    let token = match &options.token_file {
        Some(path) => Some(std::fs::read_to_string(path).map_err(|error| {
            Failure::usage(format!("--token-file {}: {error}", path.display()))
        })?),
        None => None,
    };
    let place = connection.place()?;
    let token = token.or(place.token).ok_or_else(|| {
        Failure::usage(
            "an agent needs a token: --token-file, or SKYLEDGER_TOKEN in its environment",
        )
    })?;
    let mut pause = Duration::from_millis(250);
    loop {
        let authorities = place.authorities.as_deref();
        let host = options.host.as_deref();
        match HttpLine::connect(&place.server, &token, authorities, host).await {
            Ok(line) => return Ok(line),
            Err(ConnectFault::Line(LineFault::Broken(why))) => {
                tracing::warn!(why, server = place.server, "the server is not reached yet");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            Err(ConnectFault::Line(fault)) => return Err(fault.into()),
            Err(fault) => return Err(Failure::usage(fault.to_string())),
        }
    }
}
