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
    /// Authorities that sign the server's certificate (PEM), in place of the machine's own
    #[arg(long, global = true, env = "SKYLEDGER_CA_FILE", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    ca_file: Option<PathBuf>,
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
    ca_file: Option<PathBuf>,
    server: Option<String>,
    token: Option<String>,
}

/// A server, and who asks it.
pub(crate) struct Place {
    pub(crate) server: String,
    pub(crate) token: Option<String>,
    /// Authorities in PEM, in place of the machine's own.
    pub(crate) authorities: Option<Vec<u8>>,
}

impl Connection {
    /// Where the server is, and who asks.
    pub(crate) fn place(&self) -> Result<Place, Failure> {
        let Self { ca_file, server, token } = self;
        let settings = if ca_file.is_some() && server.is_some() && token.is_some() {
            Settings::default()
        } else {
            read()?
        };
        let server = server.clone().or(settings.server).unwrap_or_else(|| DEFAULT.to_owned());
        let token = token.clone().or(settings.token);
        let authorities = match ca_file.as_ref().or(settings.ca_file.as_ref()) {
            Some(path) => Some(std::fs::read(path).map_err(|error| {
                Failure::usage(format!("--ca-file {}: {error}", path.display()))
            })?),
            None => None,
        };
        let token = token.map(|token| token.trim().to_owned());
        Ok(Place { server, token, authorities })
    }

    /// A client.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let Place { server, token, authorities } = self.place()?;
        Client::trusting(&server, token.as_deref(), authorities.as_deref())
            .map_err(|fault: ClientFault| fault.into())
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
