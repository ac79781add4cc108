//! Where the server is and who asks: flags, then environment, then `~/.config/skyledger/config.toml`.

use std::path::PathBuf;

use adapters_console::client::{Client, ClientFault};
use clap::Args;
use serde::Deserialize;

use crate::cli::Failure;

/// Where `skyledger serve` listens unless told otherwise.
const DEFAULT: &str = "http://127.0.0.1:7878";

/// How to reach the server.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// Base URL of the server
    #[arg(long, global = true, env = "SKYLEDGER_SERVER", value_name = "URL", value_hint = clap::ValueHint::Url)]
    server: Option<String>,
    /// API token
    #[arg(
        long,
        global = true,
        env = "SKYLEDGER_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    token: Option<String>,
}

/// The file of a person's own settings.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    server: Option<String>,
    token: Option<String>,
}

impl Connection {
    /// A client.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let settings = if self.server.is_some() && self.token.is_some() {
            Settings::default()
        } else {
            read()?
        };
        let server = self.server.as_deref().or(settings.server.as_deref()).unwrap_or(DEFAULT);
        let token = self.token.as_deref().or(settings.token.as_deref());
        Client::new(server, token.map(str::trim)).map_err(|fault: ClientFault| fault.into())
    }
}

fn file() -> Option<PathBuf> {
    let folder = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|folder| folder.is_absolute())
        .or_else(|| std::env::home_dir().map(|home| home.join(".config")))?;
    Some(folder.join("skyledger/config.toml"))
}

fn read() -> Result<Settings, Failure> {
    let Some(path) = file() else { return Ok(Settings::default()) };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Settings::default());
        }
        Err(error) => return Err(Failure::usage(format!("{}: {error}", path.display()))),
    };
    toml::from_str(&text).map_err(|error| {
        Failure::usage(format!("{}: {}", path.display(), error.to_string().trim_end()))
    })
}
