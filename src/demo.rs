//! `skyledger demo`: the stage on which the console tells its story.
//!
//! The server is a child process of this very program, so that it can be killed with SIGKILL; the
//! simulated cloud lies on a file that both share, so that the cloud outlives the server and can be
//! changed behind its back.

mod cloud;
mod server;

use std::path::PathBuf;

use adapters_console::{
    exit::Exit,
    story::{self, Meddling, Place, Running, Stage, Teller, Told, Untrue},
    style::Style,
};

use crate::cli::{DemoOptions, Failure};
use cloud::Cloud;
use server::Server;

/// What the demo needs of the world outside.
struct Theatre {
    cloud: Cloud,
    server: Server,
}

impl Stage for Theatre {
    fn place(&self) -> Place {
        self.cloud.place()
    }

    fn data(&self) -> PathBuf {
        self.server.data().to_owned()
    }

    async fn start(&mut self) -> Told<Running> {
        self.server.start().await
    }

    async fn kill(&mut self) -> Told {
        self.server.kill().await
    }

    async fn stop(&mut self) -> Told {
        self.server.stop().await
    }

    async fn meddle(&mut self, group: &str, what: Meddling) -> Told {
        self.cloud.meddle(group, what).await
    }

    async fn hold(&mut self, on: bool) -> Told {
        self.cloud.hold(on)
    }

    async fn counterparts(&mut self, id: &str) -> Told<Vec<(String, usize)>> {
        self.cloud.counterparts(id).await
    }

    async fn tool(&mut self, words: &[&str]) -> Told<(i32, String)> {
        server::tool(words).await
    }
}

/// Runs the demo to its end, or until somebody presses Ctrl-C.
pub(crate) async fn run(options: DemoOptions) -> Result<Exit, Failure> {
    let temporary = match &options.data {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("skyledger-demo-").tempdir()?),
    };
    let folder = match (&options.data, &temporary) {
        (Some(folder), _) => folder.clone(),
        (None, Some(folder)) => folder.path().to_owned(),
        (None, None) => return Err(Failure::new(Exit::Fault, "no folder")),
    };
    let data = folder.join("ledger");
    if data.join("keys").exists() {
        let text = format!("{} holds a ledger already; name another folder", folder.display());
        return Err(Failure::usage(text));
    }
    std::fs::create_dir_all(&data)?;
    let told = |untrue: Untrue| Failure::new(Exit::Fault, untrue.0);
    let cloud = match &options.aws_endpoint {
        Some(endpoint) => Cloud::aws(endpoint).await,
        None => Cloud::sim(&folder.join("cloud.json"), options.resources),
    };
    let cloud = cloud.map_err(told)?;
    let server = Server::new(data, cloud.file()).map_err(told)?;
    let mut theatre = Theatre { cloud, server };
    let mut teller = Teller::new(chrono::Utc::now);
    tokio::select! {
        done = play(&mut theatre, &mut teller, &options) => done,
        _ = tokio::signal::ctrl_c() => {
            theatre.server.stop().await.map_err(told)?;
            println!();
            Ok(Exit::Ok)
        }
    }
}

async fn play(
    theatre: &mut Theatre,
    teller: &mut Teller,
    options: &DemoOptions,
) -> Result<Exit, Failure> {
    let told = |untrue: Untrue| Failure::new(Exit::Fault, untrue.0);
    teller
        .open(
            "Skyledger: a ledger for clouds",
            "Every change is an event in one append-only log; everything you read is a projection \
             of it, now or at any past moment; nothing changes without a plan. This story is told \
             by a real server over its real API, and every ✓ was asserted.",
        )
        .map_err(told)?;
    let running = match story::tell(theatre, teller).await {
        Ok(running) => running,
        Err(untrue) => {
            let text = format!("the story did not come true: {untrue}{}", theatre.server.log());
            return Err(Failure::new(Exit::Fault, text));
        }
    };
    let style = Style::stdout();
    println!(
        "\n{} {} things were checked in {:.1} s.\n",
        style.green("The story came true:"),
        teller.checks(),
        teller.took().as_secs_f64()
    );
    if options.no_serve {
        theatre.server.stop().await.map_err(told)?;
        return Ok(Exit::Ok);
    }
    print!("{}", next(&running, style));
    // Until Ctrl-C, or until the server ends by itself.
    theatre.server.ended().await.map_err(told)?;
    Ok(Exit::Ok)
}

/// What to try next.
fn next(running: &Running, style: Style) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "skyledger".to_owned());
    let mut text = format!("The server goes on at {}. In another terminal:\n\n", running.url);
    let lines = [
        format!("export SKYLEDGER_SERVER={} SKYLEDGER_TOKEN={}", running.url, running.token),
        format!("{program} get servers --limit 10"),
        format!("{program} describe sg demo-web"),
        format!("{program} diff --from 1m security-groups"),
        format!("{program} events --follow"),
        format!("{program} get inventory --filter 'status = stopped' -o csv"),
    ];
    for line in lines {
        text.push_str("    ");
        text.push_str(&style.cyan(&line));
        text.push('\n');
    }
    text.push_str("\nCtrl-C ends it.\n");
    text
}
