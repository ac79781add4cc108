//! Networks of servers on a host: made with the host's own tools, and read back.
//!
//! In each module what is wanted becomes text or arguments by a function without side effects; one
//! more function runs them and reads back what the kernel then says. All of it can be run twice.

pub mod dhcp;
pub mod firewall;
pub mod offload;
pub mod quota;
pub mod rates;
pub mod reach;
pub mod uplink;

use std::{fmt, str::FromStr};

use serde::de::DeserializeOwned;

use crate::tool::{Tool, ToolFault};

/// A network of the host is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum NetworkFault {
    /// A tool did not do what it was asked.
    #[error(transparent)]
    Tool(#[from] ToolFault),
    /// It said that it had, and the kernel says otherwise.
    #[error("{what} should be {wanted}, and is {seen}")]
    Differs {
        /// Of what.
        what: String,
        /// What was asked for.
        wanted: String,
        /// What is there.
        seen: String,
    },
    /// What is wanted cannot be on a host.
    #[error("{0}")]
    Impossible(String),
}

impl NetworkFault {
    pub(crate) fn differs(
        what: impl Into<String>,
        wanted: impl fmt::Debug,
        seen: impl fmt::Debug,
    ) -> Self {
        let (wanted, seen) = (format!("{wanted:?}"), format!("{seen:?}"));
        Self::Differs { what: what.into(), wanted, seen }
    }
}

/// The name of a network interface: 1…15 letters, digits, `-`, `_` and `.`, a letter first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interface(String);

impl Interface {
    /// It.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Interface {
    type Err = NetworkFault;
    fn from_str(name: &str) -> Result<Self, NetworkFault> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let first = name.starts_with(|c: char| c.is_ascii_alphabetic());
        if !first || name.len() > 15 || !name.chars().all(plain) {
            let why = format!("`{}` is no name of an interface", name.escape_debug());
            return Err(NetworkFault::Impossible(why));
        }
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where the tools run: on the host, or in a network namespace of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// What stands before each tool.
    before: Vec<String>,
    /// Where Open vSwitch is told what to do, where that is not where it always is.
    switch: Option<String>,
}

impl Place {
    /// In a network namespace.
    pub fn namespace(name: impl Into<String>) -> Self {
        let before = ["ip".into(), "netns".into(), "exec".into(), name.into()].into();
        Self { before, switch: None }
    }

    /// In the network namespace of this file, such as `/proc/1/ns/net`.
    pub fn of(file: impl fmt::Display) -> Self {
        let before = vec!["nsenter".to_owned(), format!("--net={file}")];
        Self { before, switch: None }
    }

    /// The same, with the Open vSwitch whose database is there, as `unix:/run/openvswitch/db.sock`.
    #[must_use]
    pub fn with_switch(self, database: impl Into<String>) -> Self {
        Self { switch: Some(database.into()), ..self }
    }

    /// A tool that runs there.
    pub fn tool<'a>(&self, program: &str, arguments: impl IntoIterator<Item = &'a str>) -> Tool {
        let database = self.switch.iter().filter(|_| program == "ovs-vsctl");
        let database = database.map(|database| format!("--db={database}"));
        let words = database.chain(arguments.into_iter().map(str::to_owned));
        let Some((first, before)) = self.before.split_first() else {
            return Tool::new(program, words);
        };
        Tool::new(first, before.iter().cloned().chain([program.to_owned()]).chain(words))
    }

    /// What `ovs-ofctl` calls a bridge of Open vSwitch by: its socket lies beside that of the database.
    pub(crate) fn bridge(&self, name: &str) -> String {
        let Some(database) = &self.switch else { return name.to_owned() };
        let path = database.strip_prefix("unix:").unwrap_or(database);
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.into());
        format!("unix:{}", path.with_file_name(format!("{name}.mgmt")).display())
    }

    /// Runs a tool there, and reads its answer.
    ///
    /// # Errors
    /// When it fails, or answers something else.
    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        program: &str,
        arguments: &[&str],
    ) -> Result<T, NetworkFault> {
        let tool = self.tool(program, arguments.iter().copied());
        let answer = tool.run().await?;
        serde_json::from_slice(&answer).map_err(|error| tool.nonsense(error).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_mean_something_else_to_a_tool_are_refused() {
        assert!("vnet-a.12_3".parse::<Interface>().is_ok());
        for wrong in ["", "-a", "0a", "a b", "a\"", "a;flush", "abcdefghijklmnop", "../a", "a/b"] {
            assert!(wrong.parse::<Interface>().is_err(), "{wrong}");
        }
    }
}
