//! A server's configuration: one struct, one TOML file, one place for defaults.
//!
//! Flags stand over the file. Secrets come from the environment alone: what is in a file is in a
//! backup. Every error names the file, the line and the key.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use adapters_console::suggest::nearest;
use adapters_lake::Options;
use serde::{Deserialize, Serialize};

/// Environment variable with the password of the PostgreSQL user.
pub(crate) const PASSWORD_VARIABLE: &str = "SKYLEDGER_STORE_PASSWORD";

/// Environment variable with the password of the ClickHouse user.
#[cfg(feature = "clickhouse")]
pub(crate) const CLICKHOUSE_PASSWORD_VARIABLE: &str = "SKYLEDGER_CLICKHOUSE_PASSWORD";

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    #[default]
    Text,
}

/// Everything a server is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Where ClickHouse is, which then sums bills' lines: `http://user@host:8123/database`. Only a
    /// build with the feature `clickhouse` knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) clickhouse: Option<String>,
    /// Keys of bill tags that have a column of their own in ClickHouse.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) clickhouse_tags: Vec<String>,
    /// MiB of bills' columns that are kept in memory between questions of costs.
    pub(crate) cost_cache_mib: usize,
    /// The data folder: the embedded store, the keys.
    pub(crate) data: PathBuf,
    /// Seconds a stopping server gives requests that are being worked on.
    pub(crate) grace_s: u64,
    /// Where to listen.
    pub(crate) listen: SocketAddr,
    /// What is logged, as tracing's filters are written: `info`, `skyledger=debug,warn`.
    pub(crate) log: String,
    /// How log lines are written, to standard error.
    pub(crate) log_format: LogFormat,
    /// Where traces go: an OpenTelemetry collector's base URL (OTLP over HTTP).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) otlp_endpoint: Option<String>,
    /// Orders worked on at once, all accounts together.
    pub(crate) runner_concurrency: usize,
    /// The file of a simulated cloud: adds the provider `sim`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sim: Option<PathBuf>,
    /// `sqlite`, or a PostgreSQL URL without a password.
    pub(crate) store: String,
    /// Seconds between two looks at every account; 0 leaves it to people.
    pub(crate) sync_interval_s: u64,
    /// Certificate chain, PEM. With `tls_key` the server speaks HTTPS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Private key, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Where signed tree heads are kept, best on another disk; `witness` in the data folder when
    /// it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) witness: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            clickhouse: None,
            clickhouse_tags: Vec::new(),
            cost_cache_mib: Options::default().cache_bytes >> 20,
            data: PathBuf::from("skyledger-data"),
            grace_s: 10,
            listen: SocketAddr::from(([127, 0, 0, 1], 7878)),
            log: "info".to_owned(),
            log_format: LogFormat::default(),
            otlp_endpoint: None,
            runner_concurrency: 16,
            sim: None,
            store: "sqlite".to_owned(),
            sync_interval_s: 300,
            tls_cert: None,
            tls_key: None,
            witness: None,
        }
    }
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ConfigFault(String);

/// Which store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreChoice {
    /// The embedded one, in this file.
    Sqlite(PathBuf),
    /// PostgreSQL at this URL, password included.
    Postgres(String),
}

impl Config {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigFault> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigFault(format!("{}: {error}", path.display())))?;
        Self::parse(&text, &path.display().to_string())
    }

    fn parse(text: &str, file: &str) -> Result<Self, ConfigFault> {
        toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            let mut said = error.message().to_owned();
            let key = key_at(text, line);
            if let Some(key) = key
                && !said.contains(key)
            {
                said = format!("{key}: {said}");
            }
            if said.contains("unknown field")
                && let Some(near) = key.and_then(|key| nearest(key, KEYS.iter().copied()))
            {
                said = format!("{said}\n  hint: did you mean `{near}`?");
            }
            ConfigFault(format!("{file}:{line}: {said}"))
        })
    }

    /// What no single key can say.
    pub(crate) fn check(&self) -> Result<(), ConfigFault> {
        let no = |key: &str, why: &str| Err(ConfigFault(format!("{key}: {why}")));
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            let key = if self.tls_cert.is_some() { "tls_key" } else { "tls_cert" };
            return no(key, "certificate and key are needed together");
        }
        if self.runner_concurrency == 0 || self.runner_concurrency > 1_024 {
            return no("runner_concurrency", "lies within 1 and 1024");
        }
        if self.cost_cache_mib > 1 << 20 {
            return no("cost_cache_mib", "is at most 1048576");
        }
        if !self.listen.ip().is_loopback() && self.tls_cert.is_none() {
            return no("listen", "anything but loopback needs tls_cert and tls_key");
        }
        if let Some(url) = &self.clickhouse {
            if !cfg!(feature = "clickhouse") {
                let why = "this build is without it: `--features clickhouse` adds it";
                return no("clickhouse", why);
            }
            let user = url.split_once("://").and_then(|(_, rest)| rest.split_once('@'));
            if user.is_some_and(|(user, _)| user.contains(':')) {
                let why = "holds a password, which belongs in SKYLEDGER_CLICKHOUSE_PASSWORD";
                return no("clickhouse", why);
            }
        }
        self.store_choice(None).map(drop)
    }

    /// Which store, with a password from the environment.
    pub(crate) fn store_choice(&self, password: Option<&str>) -> Result<StoreChoice, ConfigFault> {
        let wrong = |why: &str| ConfigFault(format!("store: {why}"));
        if self.store == "sqlite" {
            return Ok(StoreChoice::Sqlite(self.data.join("ledger.db")));
        }
        let Some(rest) = ["postgres://", "postgresql://"]
            .iter()
            .find_map(|scheme| self.store.strip_prefix(scheme))
        else {
            return Err(wrong("is `sqlite` or a URL that begins with `postgres://`"));
        };
        let Some(password) = password else { return Ok(StoreChoice::Postgres(self.store.clone())) };
        let (user, place) =
            rest.split_once('@').ok_or_else(|| wrong("a password needs a user in the URL"))?;
        if user.contains(':') {
            return Err(wrong(&format!("has a password, and {PASSWORD_VARIABLE} is set too")));
        }
        let escaped =
            password.bytes().fold(String::new(), |text, byte| format!("{text}%{byte:02x}"));
        Ok(StoreChoice::Postgres(format!("postgres://{user}:{escaped}@{place}")))
    }

    /// Where signed tree heads are kept.
    pub(crate) fn witness_file(&self) -> PathBuf {
        self.witness.clone().unwrap_or_else(|| self.data.join("witness"))
    }

    /// As a file that reads as this configuration, the store's password left out.
    pub(crate) fn print(&self) -> String {
        let mut shown = self.clone();
        if let Some((scheme, rest)) = self.store.split_once("://")
            && let Some((user, place)) = rest.split_once('@')
            && let Some((name, _)) = user.split_once(':')
        {
            shown.store = format!("{scheme}://{name}@{place}");
        }
        toml::to_string(&shown).unwrap_or_else(|error| format!("# {error}\n"))
    }
}

/// Every key, sorted: for suggestions.
const KEYS: &[&str] = &[
    "clickhouse",
    "clickhouse_tags",
    "cost_cache_mib",
    "data",
    "grace_s",
    "listen",
    "log",
    "log_format",
    "otlp_endpoint",
    "runner_concurrency",
    "sim",
    "store",
    "sync_interval_s",
    "tls_cert",
    "tls_key",
    "witness",
];

fn line_of(text: &str, byte: usize) -> usize {
    1 + text.as_bytes().iter().take(byte).filter(|byte| **byte == b'\n').count()
}

fn key_at(text: &str, line: usize) -> Option<&str> {
    let line = text.lines().nth(line - 1)?;
    let (key, _) = line.split_once('=')?;
    Some(key.trim()).filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        Config::parse(text, "skyledger.toml").unwrap_err().to_string()
    }

    #[test]
    fn an_error_names_file_line_and_key_and_what_was_meant() {
        let typo = fault("data = \"x\"\nlisten_to = \"127.0.0.1:1\"\n");
        assert!(typo.starts_with("skyledger.toml:2: "), "{typo}");
        assert!(typo.contains("listen_to") && typo.contains("did you mean `listen`?"), "{typo}");
        let wrong = fault("\n\nlisten = \"nowhere\"");
        assert!(wrong.starts_with("skyledger.toml:3: listen: "), "{wrong}");
        let broken = fault("data = ");
        assert!(broken.starts_with("skyledger.toml:1: "), "{broken}");
        assert!(fault("grace_s = -1").contains("grace_s"));
    }

    #[test]
    fn what_is_printed_reads_back_and_holds_no_password() {
        let config = Config { store: "postgres://me:secret@db/ledger".into(), ..Config::default() };
        let printed = config.print();
        assert!(!printed.contains("secret"), "{printed}");
        let read = Config::parse(&printed, "printed").unwrap();
        assert_eq!(read, Config { store: "postgres://me@db/ledger".into(), ..config });
        let keys: Vec<String> = toml::from_str::<toml::Table>(&Config::default().print())
            .unwrap()
            .keys()
            .cloned()
            .collect();
        assert!(keys.iter().all(|key| KEYS.contains(&key.as_str())));
    }

    #[test]
    fn a_password_comes_from_the_environment_alone() {
        let config = Config { store: "postgres://me@db/ledger".into(), ..Config::default() };
        assert_eq!(
            config.store_choice(Some("a@")).unwrap(),
            StoreChoice::Postgres("postgres://me:%61%40@db/ledger".into())
        );
        let both = Config { store: "postgres://me:x@db/ledger".into(), ..Config::default() };
        assert!(both.store_choice(Some("y")).is_err());
        assert!(Config { store: "mysql://".into(), ..Config::default() }.check().is_err());
    }

    #[test]
    fn clickhouse_belongs_to_a_build_with_it_and_its_password_to_the_environment() {
        let config = |url: &str| Config { clickhouse: Some(url.to_owned()), ..Config::default() };
        let fault = |url: &str| config(url).check().err().map(|fault| fault.to_string());
        let with_password = fault("http://me:secret@db:8123/bills").unwrap();
        assert!(!with_password.contains("secret"), "{with_password}");
        let plain = fault("http://me@db:8123/bills");
        if cfg!(feature = "clickhouse") {
            assert!(with_password.contains("SKYLEDGER_CLICKHOUSE_PASSWORD"), "{with_password}");
            assert_eq!(plain, None);
        } else {
            assert!(plain.unwrap().contains("--features clickhouse"));
        }
    }

    #[test]
    fn the_world_outside_is_not_listened_to_without_tls() {
        let open = Config { listen: "0.0.0.0:7878".parse().unwrap(), ..Config::default() };
        assert!(open.check().unwrap_err().to_string().contains("tls_cert"));
        let half = Config { tls_cert: Some("c.pem".into()), ..Config::default() };
        assert!(half.check().unwrap_err().to_string().starts_with("tls_key"));
    }
}
