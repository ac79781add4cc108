//! A machine that has a name: servers are launched as it says, in place of saying it themselves.
//!
//! ```text
//!   absent ── define ──► defined ── retire ──► retired
//! ```
//!
//! Neither its name nor what it says ever changes, so that what servers were launched with stays true: another size is
//! another flavour. A launch records what it says beside which one it was. A name is one flavour's in its project,
//! also after it is retired.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::server::home::Spec;
use crate::{
    kernel::{Decider, Facets, Outstanding, Refusal, Stamp, Verb, codes},
    observation::NoOrder,
    tenancy::check_name,
};

/// A command of a flavour.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Give a machine a name.
    Define {
        /// What it is called, 1…100 characters; once in a project.
        name: String,
        /// Whose it is; none is the estate's, and everybody's to launch with.
        #[serde(default)]
        project: Option<Uuid>,
        /// The machine. It stays as it is first said.
        spec: Spec,
    },
    /// Launch no more servers with it.
    Retire {},
}

/// A fact about a flavour.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Event {
    /// A machine has a name.
    Defined {
        /// What it is called.
        name: String,
        /// Whose it is.
        project: Option<Uuid>,
        /// The machine.
        spec: Spec,
    },
    /// No more servers are launched with it.
    Retired {},
}

/// A machine that has a name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Flavour {
    /// What it is called; empty while it does not exist.
    pub name: String,
    /// Whose it is; none is the estate's.
    pub project: Option<Uuid>,
    /// The machine; none while it does not exist.
    pub spec: Option<Spec>,
    /// Whether no more servers are launched with it.
    pub retired: bool,
}

static VERBS: &[Verb] = &[
    Verb::admin("define", "Gives a machine a name, for launching servers like it.").creating(),
    Verb::admin("retire", "Launches no more servers with it; those that were stay as they are."),
];

impl Flavour {
    /// The machine that it says, for a server that is to be like it.
    ///
    /// # Errors
    /// `invalid-field` when it is retired, `not-found` when it does not exist.
    pub fn ensure_usable(&self) -> Result<&Spec, Refusal> {
        let spec = self.spec.as_ref().ok_or_else(unknown)?;
        if self.retired {
            let detail = format!("flavour: {} is retired", self.name);
            return Err(Refusal::new(&codes::INVALID_FIELD, detail));
        }
        Ok(spec)
    }

    fn define(
        &self,
        name: String,
        project: Option<Uuid>,
        spec: Spec,
    ) -> Result<Vec<Event>, Refusal> {
        check_name(&name)?;
        spec.check()?;
        let mut functions = spec.devices.iter().filter_map(|ask| ask.function.as_ref());
        if functions.any(|function| function.mac.is_some()) {
            let detail = "spec.devices: function.mac: a hardware address is one server's";
            return Err(Refusal::new(&codes::INVALID_FIELD, detail));
        }
        let Some(known) = &self.spec else {
            return Ok(vec![Event::Defined { name, project, spec }]);
        };
        if (&self.name, self.project, known) == (&name, project, &spec) && !self.retired {
            return Ok(vec![]);
        }
        let detail = "it stays what it was defined as: define another one";
        Err(Refusal::new(&codes::ALREADY_EXISTS, detail))
    }
}

fn unknown() -> Refusal {
    Refusal::new(&codes::NOT_FOUND, "there is no such flavour")
}

impl Decider for Flavour {
    const KIND: &'static str = "flavour";
    const PLURAL: &'static str = "flavours";
    const SUMMARY: &'static str = "A machine that has a name, for launching servers like it.";
    type Command = Command;
    type Event = Event;
    type Order = NoOrder;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command, _: &Stamp) -> Result<Vec<Event>, Refusal> {
        match command {
            Command::Define { name, project, spec } => self.define(name, project, spec),
            _ if self.spec.is_none() => Err(unknown()),
            Command::Retire {} if self.retired => Ok(vec![]),
            Command::Retire {} => Ok(vec![Event::Retired {}]),
        }
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::Defined { name, project, spec } => {
                Self { name, project, spec: Some(spec), retired: false }
            }
            Event::Retired {} => {
                self.retired = true;
                self
            }
        }
    }

    fn order(&self) -> Option<Outstanding<NoOrder>> {
        None
    }

    fn status(&self) -> &'static str {
        match (&self.spec, self.retired) {
            (None, _) => "absent",
            (_, true) => "retired",
            _ => "defined",
        }
    }

    fn facets(&self) -> Facets {
        Facets {
            name: Some(self.name.clone()),
            project: self.project,
            gone: self.retired,
            ..Facets::default()
        }
    }

    fn claims(&self, events: &[Event]) -> Vec<String> {
        let of = |event: &Event| match event {
            Event::Defined { name, project, .. } => {
                let project = project.map_or_else(|| "-".to_owned(), |id| id.to_string());
                Some(format!("flavour/{project}/{name}"))
            }
            Event::Retired {} => None,
        };
        events.iter().filter_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::{Value, json};

    use super::*;

    fn spec(body: Value) -> Spec {
        serde_json::from_value(body).unwrap()
    }

    fn define(name: &str, body: Value) -> Command {
        Command::Define { name: name.into(), project: None, spec: spec(body) }
    }

    fn check(given: &[Event], when: Command, then: Result<&[Event], &str>) {
        let state = given.iter().cloned().fold(Flavour::default(), Decider::evolve);
        let stamp = Stamp { now: DateTime::UNIX_EPOCH, actor: "test".into() };
        let got = state.decide(when, &stamp);
        assert_eq!(got.as_deref().map_err(|no| no.code.code), then);
    }

    #[test]
    fn what_it_says_stays_and_nothing_is_launched_with_a_retired_one() {
        let small = json!({"vcpus": 2, "memory_mib": 2_048});
        let defined =
            Event::Defined { name: "small".into(), project: None, spec: spec(small.clone()) };
        check(&[], Command::Retire {}, Err("not-found"));
        check(&[], define("small", small.clone()), Ok(&[defined.clone()]));
        let given = [defined.clone()];
        check(&given, define("small", small.clone()), Ok(&[]));
        check(&given, define("tiny", small.clone()), Err("already-exists"));
        let larger = json!({"vcpus": 4, "memory_mib": 2_048});
        check(&given, define("small", larger), Err("already-exists"));
        check(&given, Command::Retire {}, Ok(&[Event::Retired {}]));
        let retired = [defined.clone(), Event::Retired {}];
        check(&retired, Command::Retire {}, Ok(&[]));
        check(&retired, define("small", small), Err("already-exists"));
        let of = |given: &[Event]| {
            let state = given.iter().cloned().fold(Flavour::default(), Decider::evolve);
            state.ensure_usable().map(|spec| spec.vcpus).map_err(|no| no.code.code)
        };
        assert_eq!(of(&[]), Err("not-found"));
        assert_eq!(of(&given), Ok(2));
        assert_eq!(of(&retired), Err("invalid-field"));
        assert_eq!(Flavour::default().claims(&given), ["flavour/-/small"]);
    }

    #[test]
    fn what_no_server_could_be_is_no_flavour() {
        let function = json!([{
            "kind": "vf", "function": {"mac": "52:54:00:00:00:07"},
        }]);
        for (name, body, code) in [
            ("", json!({"vcpus": 1, "memory_mib": 64}), "invalid-field"),
            ("none", json!({"vcpus": 0, "memory_mib": 64}), "invalid-field"),
            ("none", json!({"vcpus": 1, "memory_mib": 0}), "invalid-field"),
            ("odd", json!({"vcpus": 1, "memory_mib": 3, "page_kib": 2_048}), "invalid-field"),
            (
                "bound",
                json!({"vcpus": 1, "vcpus_max": 2, "memory_mib": 64, "numa": "strict"}),
                "unsupported",
            ),
            ("mac", json!({"vcpus": 1, "memory_mib": 64, "devices": function}), "invalid-field"),
        ] {
            check(&[], define(name, body), Err(code));
        }
    }
}
