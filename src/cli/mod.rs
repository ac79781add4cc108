//! The command line: its grammar here, what each command does in the files beside.

mod agent;
mod audit;
mod command;
mod console;
mod cost;
mod forecast;
mod grammar;
mod image;
mod pull;
mod query;
mod reach;
mod responder;
mod run;
mod serve;
mod subject;
mod upkeep;
mod watch;

use std::process::ExitCode;

use adapters_console::{
    client::ClientFault, exit::Exit, input::InputFault, names::NameFault, style::Style,
};
use clap::{CommandFactory, Parser};

pub(crate) use grammar::{Cli, Command, Demo as DemoOptions};

/// Why a command did not come to its end: words, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into() }
    }

    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(Exit::Usage, text)
    }
}

impl From<ClientFault> for Failure {
    fn from(fault: ClientFault) -> Self {
        Self::new(fault.exit(), fault.text(Style::stderr()))
    }
}

impl From<NameFault> for Failure {
    fn from(fault: NameFault) -> Self {
        match fault {
            NameFault::Client(fault) => fault.into(),
            other => Self::new(other.exit(), other.to_string()),
        }
    }
}

impl From<InputFault> for Failure {
    fn from(fault: InputFault) -> Self {
        Self::usage(fault.to_string())
    }
}

impl From<crate::config::ConfigFault> for Failure {
    fn from(fault: crate::config::ConfigFault) -> Self {
        Self::usage(fault.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        // Who reads has seen enough: `skyledger get servers | head`.
        let exit =
            if error.kind() == std::io::ErrorKind::BrokenPipe { Exit::Ok } else { Exit::Fault };
        Self::new(exit, error.to_string())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Exit::Fault, format!("{error:#}"))
    }
}

/// Runs the program: reads the command line, does it, and gives the exit code.
pub fn run() -> ExitCode {
    // Whoever is first decides; there is nobody else.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse();
    match dispatch(cli) {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(Failure { exit: Exit::Ok, .. }) => ExitCode::SUCCESS,
        Err(Failure { exit, text }) => {
            eprintln!("{} {text}", Style::stderr().red("error:"));
            ExitCode::from(exit as u8)
        }
    }
}

fn dispatch(cli: Cli) -> Result<Exit, Failure> {
    match cli.command {
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "skyledger",
                &mut std::io::stdout(),
            );
            Ok(Exit::Ok)
        }
        Command::Version => {
            println!("skyledger {}", env!("CARGO_PKG_VERSION"));
            Ok(Exit::Ok)
        }
        Command::Agent(agent) => agent::run(agent, &cli.connection),
        Command::Reach(options) => reach::run(&options),
        Command::Responder(options) => responder::run(&options),
        Command::Serve(serve) => serve::run(serve),
        Command::Demo(demo) => runtime()?.block_on(crate::demo::run(demo)),
        other => runtime()?.block_on(serve_client(other, cli.connection)),
    }
}

/// Everything that talks to a server, or works on a data folder, and comes back soon.
async fn serve_client(
    command: Command,
    connection: crate::connection::Connection,
) -> Result<Exit, Failure> {
    match command {
        Command::Allocate(allocate) => cost::allocate(allocate, &connection).await,
        Command::Amortise(months) => run::run("/v1/amortisations", months, &connection).await,
        Command::Audit { command } => audit::run(command, &connection).await,
        Command::Bill { command } => cost::bill(command, &connection).await,
        Command::BillSource { command } => pull::run(command, &connection).await,
        Command::Budgets(budgets) => watch::budgets(&budgets, &connection).await,
        Command::Check(place) => upkeep::check(place).await,
        Command::Export(export) => upkeep::export(export).await,
        Command::Image { command } => image::run(command, &connection).await,
        Command::Import(import) => upkeep::import(import).await,
        Command::Rate(months) => run::run("/v1/ratings", months, &connection).await,
        Command::Rebuild(rebuild) => upkeep::rebuild(rebuild).await,
        Command::Replay(replay) => upkeep::replay(replay).await,
        Command::Console(options) => console::run(&options, &connection).await,
        Command::Costs(costs) => cost::costs(costs, &connection).await,
        Command::Describe(get) => query::describe(get, &connection).await,
        Command::Detect(output) => watch::detect(&output, &connection).await,
        Command::Diff(diff) => query::diff(diff, &connection).await,
        Command::Devices(devices) => query::devices(&devices, &connection).await,
        Command::Drain(drain) => query::drain(&drain, &connection).await,
        Command::Events(events) => query::events(events, &connection).await,
        Command::Forecast(forecast) => forecast::run(forecast, &connection).await,
        Command::Get(get) => query::get(get, &connection).await,
        Command::History(history) => query::history(history, &connection).await,
        Command::Hints(hints) => watch::hints(&hints, &connection).await,
        Command::Kpis(kpis) => watch::kpis(&kpis, &connection).await,
        Command::Machines(machines) => query::machines(&machines, &connection).await,
        Command::Mappings(list) => query::view("mappings", list, &connection).await,
        Command::Orders(list) => query::view("orders", list, &connection).await,
        Command::Placements(placements) => query::placements(&placements, &connection).await,
        Command::Report { command } => watch::report(command, &connection).await,
        Command::SourceMachines(sources) => query::source_machines(&sources, &connection).await,
        Command::Usage(import) => run::import_usage(import, &connection).await,
        Command::Why(why) => query::why(why, &connection).await,
        other => command::run(other, &connection).await,
    }
}

pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Fault, error.to_string()))
}
