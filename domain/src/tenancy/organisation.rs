//! How a company is built: a tree of named levels whose nodes have projects.
//!
//! ```text
//!            define                        add-node, move-node, bind, …
//!   absent ──────────► active ◄────────────────────┘
//!                      │    ▲
//!              archive ▼    │ restore
//!                      archived
//! ```
//!
//! A project hangs at one node at most: at the one it is bound to by hand, else at that of the first
//! rule that fits it. What it was at any time, the log tells: costs of a month are shown by the tree
//! as it was then.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{check_name, project::Project};
use crate::{
    finops::rules::{Condition, Match},
    kernel::{Decider, Facets, Outstanding, Refusal, Stamp, Verb, codes},
    observation::NoOrder,
};

/// Most levels.
const LEVELS_MAX: usize = 8;
/// Most nodes.
const NODES_MAX: usize = 2_000;
/// Most projects bound by hand.
const BOUND_MAX: usize = 10_000;
/// Most rules.
const RULES_MAX: usize = 500;

/// A place in the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Node {
    /// What it is called.
    pub name: String,
    /// The key of what it hangs in; none at the first level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
}

/// Hangs projects at a node, unless they are bound by hand. The first rule that fits one wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeRule {
    /// How many of the conditions must hold.
    #[serde(default, rename = "match")]
    pub how: Match,
    /// On the project: `name`, `domain` (an id) or `tags.<key>`.
    pub conditions: Vec<Condition>,
    /// The node's key; when it is left out, the node whose key is the value of the tag `node_of`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// A tag of the project whose value is the node's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_of: Option<String>,
}

/// A command of an organisation.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Add a place to the tree.
    AddNode {
        /// Unique in the organisation, 1…100 characters; it never changes.
        key: String,
        /// 1…100 characters, without `/`; the key when it is left out.
        #[serde(default)]
        name: Option<String>,
        /// The key of what it hangs in; none at the first level.
        #[serde(default)]
        parent: Option<String>,
    },
    /// Count it no more.
    Archive {},
    /// Hang projects at a node by hand, wherever they hung before.
    Bind {
        /// The node's key.
        node: String,
        /// Ids.
        projects: Vec<Uuid>,
    },
    /// Begin it, or name it and its levels anew.
    Define {
        /// 1…100 characters; as before when it is left out.
        #[serde(default)]
        name: Option<String>,
        /// What each level is called, from the root down, at most 8; no fewer than are in use.
        levels: Vec<String>,
    },
    /// Hang a node, with all that hangs in it, elsewhere.
    MoveNode {
        /// Its key.
        key: String,
        /// The key of what it is to hang in; none at the first level.
        #[serde(default)]
        parent: Option<String>,
    },
    /// Take away a node that nothing hangs in.
    RemoveNode {
        /// Its key.
        key: String,
    },
    /// Call a node something else.
    RenameNode {
        /// Its key.
        key: String,
        /// 1…100 characters, without `/`.
        name: String,
    },
    /// Count it again.
    Restore {},
    /// Hang projects by these rules, in place of those there are.
    SetRules {
        /// In order: the first that fits a project wins.
        rules: Vec<NodeRule>,
    },
    /// Leave projects to the rules again.
    Unbind {
        /// Ids.
        projects: Vec<Uuid>,
    },
}

/// A fact about an organisation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Event {
    /// It counts no more.
    Archived {},
    /// Projects hang at a node by hand.
    Bound {
        /// The node's key.
        node: String,
        /// Ids, sorted.
        projects: Vec<Uuid>,
    },
    /// It has begun, or has other names.
    Defined {
        /// What it is called.
        name: String,
        /// What each level is called, from the root down.
        levels: Vec<String>,
    },
    /// There is one more place.
    NodeAdded {
        /// Its key.
        key: String,
        /// The place.
        node: Node,
    },
    /// A place hangs elsewhere.
    NodeMoved {
        /// Its key.
        key: String,
        /// The key of what it hangs in.
        parent: Option<String>,
    },
    /// A place is there no more.
    NodeRemoved {
        /// Its key.
        key: String,
    },
    /// A place is called something else.
    NodeRenamed {
        /// Its key.
        key: String,
        /// What it is called.
        name: String,
    },
    /// It counts again.
    Restored {},
    /// Projects hang by these rules.
    RulesSet {
        /// All of them.
        rules: Vec<NodeRule>,
    },
    /// Projects are left to the rules.
    Unbound {
        /// Ids, sorted.
        projects: Vec<Uuid>,
    },
}

/// How a company is built.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Organisation {
    /// Its name; empty while it does not exist.
    pub name: String,
    /// What each level is called, from the root down.
    pub levels: Vec<String>,
    /// Every place, by its key.
    pub nodes: BTreeMap<String, Node>,
    /// Which projects hang where by hand.
    pub bound: BTreeMap<Uuid, String>,
    /// Where the others hang.
    pub rules: Vec<NodeRule>,
    /// Whether it counts no more.
    pub archived: bool,
}

static VERBS: &[Verb] = &[
    Verb::admin("add-node", "Adds a place to the tree."),
    Verb::admin("archive", "Counts the organisation no more."),
    Verb::admin("bind", "Hangs projects at a node by hand."),
    Verb::admin("define", "Begins an organisation, or names it and its levels anew.").creating(),
    Verb::admin("move-node", "Hangs a node, with all that hangs in it, elsewhere."),
    Verb::admin("remove-node", "Takes away a node that nothing hangs in."),
    Verb::admin("rename-node", "Calls a node something else."),
    Verb::admin("restore", "Counts an archived organisation again."),
    Verb::admin("set-rules", "Hangs projects by these rules, in place of those there are."),
    Verb::admin("unbind", "Leaves projects to the rules again."),
];

fn invalid(detail: impl Into<String>) -> Refusal {
    Refusal::new(&codes::INVALID_FIELD, detail.into())
}

fn label(what: &str, text: &str) -> Result<(), Refusal> {
    check_name(text)?;
    if text.contains('/') {
        return Err(invalid(format!("{what}: {text:?} has a slash, which separates levels")));
    }
    Ok(())
}

/// What a rule looks at.
fn value<'a>(dimension: &str, project: &'a Project, domain: &'a str) -> Option<&'a str> {
    match dimension {
        "name" => Some(&project.name),
        "domain" => Some(domain),
        _ => {
            let key = dimension.strip_prefix("tags.").filter(|key| !key.is_empty())?;
            Some(project.tags.get(key).map_or("", String::as_str))
        }
    }
}

impl NodeRule {
    fn check(&self) -> Result<(), Refusal> {
        if self.conditions.is_empty() && self.node_of.is_none() {
            return Err(invalid("a rule has no condition"));
        }
        if self.node.is_some() == self.node_of.is_some() {
            return Err(invalid("a rule needs either node or node_of"));
        }
        let nobody = Project::default();
        for condition in &self.conditions {
            if value(&condition.dimension, &nobody, "").is_none() {
                let name = &condition.dimension;
                let known = "name, domain and tags.<key>";
                return Err(invalid(format!("a project has {known}, and no {name:?}")));
            }
            if condition.values.is_empty() || condition.values.len() > RULES_MAX {
                return Err(invalid(format!("a condition needs 1 to {RULES_MAX} values")));
            }
        }
        Ok(())
    }

    fn fits(&self, project: &Project, domain: &str) -> bool {
        let mut held = self.conditions.iter().map(|condition| {
            condition.holds(value(&condition.dimension, project, domain).unwrap_or_default())
        });
        match self.how {
            _ if self.conditions.is_empty() => true,
            Match::All => held.all(|yes| yes),
            Match::Any => held.any(|yes| yes),
        }
    }
}

impl Organisation {
    fn node(&self, key: &str) -> Result<&Node, Refusal> {
        self.nodes
            .get(key)
            .ok_or_else(|| Refusal::new(&codes::NOT_FOUND, format!("there is no node {key:?}")))
    }

    /// How deep a place is; 1 at the first level. Zero for none.
    fn depth(&self, key: Option<&str>) -> usize {
        std::iter::successors(key, |key| self.nodes.get(*key)?.parent.as_deref())
            .take(self.nodes.len())
            .count()
    }

    /// How many levels hang in a place, itself counted.
    fn height(&self, key: &str) -> usize {
        let below = self.nodes.iter().filter(|(_, node)| node.parent.as_deref() == Some(key));
        1 + below.map(|(key, _)| self.height(key)).max().unwrap_or(0)
    }

    fn fits_in(&self, parent: Option<&str>, height: usize) -> Result<(), Refusal> {
        if let Some(parent) = parent {
            self.node(parent)?;
        }
        let depth = self.depth(parent) + height;
        if depth > self.levels.len() {
            let detail = format!("that is level {depth}, and there are {}", self.levels.len());
            return Err(invalid(detail));
        }
        Ok(())
    }

    /// No two places of one name hang in the same.
    fn alone(&self, key: &str, name: &str, parent: Option<&str>) -> Result<(), Refusal> {
        let twin = self.nodes.iter().find(|(other, node)| {
            *other != key && node.name == name && node.parent.as_deref() == parent
        });
        twin.map_or(Ok(()), |(other, _)| {
            Err(invalid(format!("node {other:?} there is called {name:?} already")))
        })
    }

    /// Where a project hangs: the node's key.
    pub fn node_of(&self, id: Uuid, project: &Project) -> Option<&str> {
        if self.archived {
            return None;
        }
        if let Some(key) = self.bound.get(&id) {
            return Some(key);
        }
        let domain = project.domain.map(|domain| domain.to_string()).unwrap_or_default();
        self.rules.iter().filter(|rule| rule.fits(project, &domain)).find_map(|rule| {
            let key = match (&rule.node, &rule.node_of) {
                (Some(key), _) => key,
                (None, Some(tag)) => project.tags.get(tag)?,
                (None, None) => return None,
            };
            self.nodes.get_key_value(key).map(|(key, _)| key.as_str())
        })
    }

    /// The names from the first level down to a node.
    pub fn path(&self, key: &str) -> Vec<&str> {
        let up = std::iter::successors(self.nodes.get(key), |node| {
            self.nodes.get(node.parent.as_deref()?)
        });
        let mut path: Vec<_> = up.take(self.nodes.len()).map(|node| node.name.as_str()).collect();
        path.reverse();
        path
    }

    /// The keys from a node up to the first level: nearest first.
    pub fn ancestry<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        std::iter::successors(Some(key), |key| self.nodes.get(*key)?.parent.as_deref())
            .take(self.nodes.len())
    }

    fn define(&self, name: Option<String>, levels: Vec<String>) -> Result<Vec<Event>, Refusal> {
        let name = name.unwrap_or_else(|| self.name.clone());
        check_name(&name)?;
        if levels.is_empty() || levels.len() > LEVELS_MAX {
            return Err(invalid(format!("levels: needs 1 to {LEVELS_MAX}")));
        }
        for (at, level) in levels.iter().enumerate() {
            label("levels", level)?;
            if levels[..at].contains(level) {
                return Err(invalid(format!("levels: two are called {level:?}")));
            }
        }
        let used = self.nodes.keys().map(|key| self.depth(Some(key))).max().unwrap_or(0);
        if levels.len() < used {
            return Err(invalid(format!("levels: {used} are in use")));
        }
        let same = name == self.name && levels == self.levels;
        Ok(if same { vec![] } else { vec![Event::Defined { name, levels }] })
    }

    fn add(
        &self,
        key: String,
        name: Option<String>,
        parent: Option<String>,
    ) -> Result<Vec<Event>, Refusal> {
        label("key", &key)?;
        let name = name.unwrap_or_else(|| key.clone());
        label("name", &name)?;
        let node = Node { name, parent };
        if let Some(known) = self.nodes.get(&key) {
            if *known == node {
                return Ok(vec![]);
            }
            return Err(Refusal::new(&codes::ALREADY_EXISTS, format!("there is a node {key:?}")));
        }
        if self.nodes.len() >= NODES_MAX {
            return Err(invalid(format!("there are {NODES_MAX} nodes, and no more fit")));
        }
        self.fits_in(node.parent.as_deref(), 1)?;
        self.alone(&key, &node.name, node.parent.as_deref())?;
        Ok(vec![Event::NodeAdded { key, node }])
    }

    fn relocate(&self, key: String, parent: Option<String>) -> Result<Vec<Event>, Refusal> {
        let node = self.node(&key)?;
        if node.parent == parent {
            return Ok(vec![]);
        }
        if let Some(parent) = parent.as_deref()
            && self.ancestry(parent).any(|above| above == key)
        {
            return Err(invalid(format!("{key:?} cannot hang in {parent:?}, which hangs in it")));
        }
        self.fits_in(parent.as_deref(), self.height(&key))?;
        self.alone(&key, &node.name, parent.as_deref())?;
        Ok(vec![Event::NodeMoved { key, parent }])
    }

    fn remove(&self, key: String) -> Result<Vec<Event>, Refusal> {
        if !self.nodes.contains_key(&key) {
            return Ok(vec![]);
        }
        let below = self.nodes.iter().find(|(_, node)| node.parent.as_deref() == Some(&key));
        if let Some((below, _)) = below {
            return Err(invalid(format!("node {below:?} hangs in {key:?}")));
        }
        if let Some((project, _)) = self.bound.iter().find(|(_, node)| **node == key) {
            return Err(invalid(format!("project {project} is bound to {key:?}")));
        }
        if self.rules.iter().any(|rule| rule.node.as_deref() == Some(key.as_str())) {
            return Err(invalid(format!("a rule hangs projects at {key:?}")));
        }
        Ok(vec![Event::NodeRemoved { key }])
    }

    fn bind(&self, node: String, projects: Vec<Uuid>) -> Result<Vec<Event>, Refusal> {
        self.node(&node)?;
        let mut projects = projects;
        projects.retain(|project| self.bound.get(project) != Some(&node));
        projects.sort_unstable();
        projects.dedup();
        let new = projects.iter().filter(|project| !self.bound.contains_key(project)).count();
        if self.bound.len() + new > BOUND_MAX {
            return Err(invalid(format!("more than {BOUND_MAX} projects would be bound by hand")));
        }
        Ok(if projects.is_empty() { vec![] } else { vec![Event::Bound { node, projects }] })
    }

    fn set_rules(&self, rules: Vec<NodeRule>) -> Result<Vec<Event>, Refusal> {
        if rules.len() > RULES_MAX {
            return Err(invalid(format!("there are at most {RULES_MAX} rules")));
        }
        for rule in &rules {
            rule.check()?;
            if let Some(key) = &rule.node {
                self.node(key)?;
            }
        }
        Ok(if rules == self.rules { vec![] } else { vec![Event::RulesSet { rules }] })
    }
}

impl Decider for Organisation {
    const KIND: &'static str = "organisation";
    const PLURAL: &'static str = "organisations";
    const SUMMARY: &'static str = "A tree of named levels whose nodes have projects.";
    type Command = Command;
    type Event = Event;
    type Order = NoOrder;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command, _: &Stamp) -> Result<Vec<Event>, Refusal> {
        let exists = !self.name.is_empty();
        Ok(match command {
            Command::Define { name, levels } => self.define(name, levels)?,
            _ if !exists => {
                return Err(Refusal::new(&codes::NOT_FOUND, "there is no such organisation"));
            }
            Command::AddNode { key, name, parent } => self.add(key, name, parent)?,
            Command::Archive {} if self.archived => vec![],
            Command::Archive {} => vec![Event::Archived {}],
            Command::Bind { node, projects } => self.bind(node, projects)?,
            Command::MoveNode { key, parent } => self.relocate(key, parent)?,
            Command::RemoveNode { key } => self.remove(key)?,
            Command::RenameNode { key, name } => {
                label("name", &name)?;
                let node = self.node(&key)?;
                self.alone(&key, &name, node.parent.as_deref())?;
                let same = node.name == name;
                if same { vec![] } else { vec![Event::NodeRenamed { key, name }] }
            }
            Command::Restore {} if self.archived => vec![Event::Restored {}],
            Command::Restore {} => vec![],
            Command::SetRules { rules } => self.set_rules(rules)?,
            Command::Unbind { mut projects } => {
                projects.retain(|project| self.bound.contains_key(project));
                projects.sort_unstable();
                projects.dedup();
                if projects.is_empty() { vec![] } else { vec![Event::Unbound { projects }] }
            }
        })
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::Archived {} => self.archived = true,
            Event::Bound { node, projects } => {
                self.bound.extend(projects.into_iter().map(|project| (project, node.clone())));
            }
            Event::Defined { name, levels } => {
                self.name = name;
                self.levels = levels;
            }
            Event::NodeAdded { key, node } => {
                self.nodes.insert(key, node);
            }
            Event::NodeMoved { key, parent } => {
                if let Some(node) = self.nodes.get_mut(&key) {
                    node.parent = parent;
                }
            }
            Event::NodeRemoved { key } => {
                self.nodes.remove(&key);
            }
            Event::NodeRenamed { key, name } => {
                if let Some(node) = self.nodes.get_mut(&key) {
                    node.name = name;
                }
            }
            Event::Restored {} => self.archived = false,
            Event::RulesSet { rules } => self.rules = rules,
            Event::Unbound { projects } => {
                self.bound.retain(|project, _| !projects.contains(project));
            }
        }
        self
    }

    fn order(&self) -> Option<Outstanding<NoOrder>> {
        None
    }

    fn status(&self) -> &'static str {
        match (self.name.is_empty(), self.archived) {
            (true, _) => "absent",
            (_, true) => "archived",
            _ => "active",
        }
    }

    fn facets(&self) -> Facets {
        Facets { name: Some(self.name.clone()), gone: self.archived, ..Facets::default() }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::json;

    use super::*;

    fn id(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    fn after(steps: &[serde_json::Value]) -> Result<Organisation, Refusal> {
        let stamp = Stamp { now: DateTime::UNIX_EPOCH, actor: "test".into() };
        steps.iter().try_fold(Organisation::default(), |state, step| {
            let command = serde_json::from_value(step.clone()).unwrap();
            let events = state.decide(command, &stamp)?;
            Ok(events.into_iter().fold(state, Decider::evolve))
        })
    }

    fn command(name: &str, data: serde_json::Value) -> serde_json::Value {
        json!({"type": name, "data": data})
    }

    fn tree() -> Vec<serde_json::Value> {
        vec![
            command("define", json!({"name": "Acme", "levels": ["company", "division", "team"]})),
            command("add-node", json!({"key": "acme", "name": "Acme"})),
            command("add-node", json!({"key": "retail", "name": "Retail", "parent": "acme"})),
            command("add-node", json!({"key": "web", "parent": "retail"})),
            command("add-node", json!({"key": "lab", "parent": "acme"})),
        ]
    }

    fn project(name: &str, team: Option<&str>) -> Project {
        let tags = team.map(|team| ("team".to_owned(), team.to_owned())).into_iter().collect();
        Project { name: name.into(), tags, ..Project::default() }
    }

    #[test]
    fn a_project_hangs_by_hand_else_by_the_first_rule_that_fits() {
        let mut steps = tree();
        steps.push(command(
            "set-rules",
            json!({"rules": [
                {"conditions": [{"dimension": "name", "compare": "begins", "values": ["lab-"]}],
                 "node": "lab"},
                {"conditions": [], "node_of": "team"},
            ]}),
        ));
        steps.push(command("bind", json!({"node": "retail", "projects": [id(1)]})));
        let state = after(&steps).unwrap();
        let at = |n, project: &Project| state.node_of(id(n), project).map(str::to_owned);
        assert_eq!(at(1, &project("lab-x", Some("web"))).as_deref(), Some("retail"), "by hand");
        assert_eq!(at(2, &project("lab-x", Some("web"))).as_deref(), Some("lab"));
        assert_eq!(at(2, &project("shop", Some("web"))).as_deref(), Some("web"));
        assert_eq!(at(2, &project("shop", Some("nowhere"))), None);
        assert_eq!(state.path("web"), ["Acme", "Retail", "web"]);
        assert_eq!(state.ancestry("web").collect::<Vec<_>>(), ["web", "retail", "acme"]);
        steps.push(command("unbind", json!({"projects": [id(1), id(7)]})));
        let state = after(&steps).unwrap();
        assert_eq!(state.node_of(id(1), &project("lab-x", None)), Some("lab"));
    }

    #[test]
    fn a_tree_stays_a_tree_of_its_levels() {
        for (step, words) in [
            (json!(["move-node", {"key": "acme", "parent": "web"}]), "hangs in it"),
            (json!(["move-node", {"key": "retail", "parent": "lab"}]), "that is level 4"),
            (json!(["add-node", {"key": "x", "parent": "web"}]), "that is level 4"),
            (json!(["add-node", {"key": "x", "parent": "nowhere"}]), "no node"),
            (json!(["add-node", {"key": "y", "name": "Retail", "parent": "acme"}]), "already"),
            (json!(["add-node", {"key": "a/b"}]), "slash"),
            (json!(["remove-node", {"key": "retail"}]), "hangs in"),
            (json!(["define", {"levels": ["company", "division"]}]), "3 are in use"),
            (json!(["bind", {"node": "nowhere", "projects": []}]), "no node"),
            (json!(["set-rules", {"rules": [{"conditions": [], "node": "web"}]}]), "no condition"),
            (
                json!(["set-rules", {"rules": [{"conditions":
                    [{"dimension": "size", "values": ["1"]}], "node": "web"}]}]),
                "no \"size\"",
            ),
        ] {
            let mut steps = tree();
            steps.push(command(step[0].as_str().unwrap(), step[1].clone()));
            let refusal = after(&steps).unwrap_err();
            assert!(refusal.detail.contains(words), "{step}: {}", refusal.detail);
        }
        let mut steps = tree();
        steps.push(command("move-node", json!({"key": "web", "parent": "lab"})));
        assert_eq!(after(&steps).unwrap().path("web"), ["Acme", "lab", "web"]);
        steps.push(command("remove-node", json!({"key": "retail"})));
        assert!(!after(&steps).unwrap().nodes.contains_key("retail"));
    }

    #[test]
    fn what_is_so_already_makes_no_event() {
        let twice: Vec<_> = tree().into_iter().chain(tree()).collect();
        assert_eq!(after(&twice).unwrap(), after(&tree()).unwrap());
    }
}
