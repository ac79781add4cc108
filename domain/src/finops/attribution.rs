//! Whose costs are: by the tag list, by rules, by the inventory, by accounts; and what they can be
//! grouped by because of it: project, domain, node of the organisation, tags in effect.
//!
//! What a month's costs are compared with is the estate as it was at the end of that month. What was
//! not known then (a bill may be older than the log) is taken as it is known at the moment that is
//! asked of. A project is the same one all the time: it is called what it is called at that moment.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    str::FromStr,
    sync::Arc,
};

use chrono::NaiveDate;
use foldhash::fast::FixedState;
use serde::Serialize;
use uuid::Uuid;

use super::{
    amount::BillingMonth,
    cost::Dimension,
    rules::{By, Known, Placing},
    tagging::Entry,
};
use crate::{
    kernel::{canonical_bytes, sha256},
    log::hex,
    tenancy::{organisation::Organisation, project::Project},
};

/// What costs are grouped and filtered by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Axis {
    /// A dimension of lines.
    Line(Dimension),
    /// The centre: a project, or a pool.
    Project,
    /// The project's domain.
    Domain,
    /// The project's node in the organisation: its path, such as `Acme/Retail/Web`.
    Node,
    /// The part of that path at a level, by the level's name.
    Level(String),
    /// What placed it: `owner`, `rule`, `inventory`, `account`, `nothing`.
    PlacedBy,
    /// The rule that placed it.
    Rule,
    /// A tag in effect.
    EffectiveTag(String),
    /// A tag of the resource in the inventory.
    ResourceTag(String),
    /// A tag of the project.
    ProjectTag(String),
    /// What the inventory says of the resource.
    Inventory(&'static str),
}

impl Axis {
    /// What the inventory says of a resource, sorted.
    pub const INVENTORY: [&'static str; 7] =
        ["account", "kind", "name", "provider", "region", "status", "zone"];
    /// Axes that are no dimension of lines and have no argument, sorted.
    pub const PLAIN: [&'static str; 5] = ["domain", "node", "placed_by", "project", "rule"];
    /// Axes with an argument behind the point, sorted.
    pub const FAMILIES: [&'static str; 6] =
        ["effective_tags", "inventory", "level", "project_tags", "resource_tags", "tags"];

    /// Whether rules decide it.
    pub fn is_placed(&self) -> bool {
        matches!(
            self,
            Self::Project
                | Self::Domain
                | Self::Node
                | Self::Level(_)
                | Self::PlacedBy
                | Self::Rule
                | Self::ProjectTag(_)
        )
    }

    /// Whether an organisation's tree decides it.
    pub fn is_of_tree(&self) -> bool {
        matches!(self, Self::Node | Self::Level(_))
    }

    /// Whether it is told by a line alone.
    pub fn is_of_line(&self) -> bool {
        matches!(self, Self::Line(_))
    }
}

impl FromStr for Axis {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let (family, key) = name.split_once('.').unwrap_or((name, ""));
        let key = || key.to_owned();
        Ok(match (family, key().is_empty()) {
            ("project", true) if name == "project" => Self::Project,
            ("domain", true) if name == "domain" => Self::Domain,
            ("node", true) if name == "node" => Self::Node,
            ("placed_by", true) if name == "placed_by" => Self::PlacedBy,
            ("rule", true) if name == "rule" => Self::Rule,
            ("level", false) => Self::Level(key()),
            ("effective_tags", false) => Self::EffectiveTag(key()),
            ("resource_tags", false) => Self::ResourceTag(key()),
            ("project_tags", false) => Self::ProjectTag(key()),
            ("inventory", false) => {
                let column = Self::INVENTORY.into_iter().find(|one| *one == key());
                Self::Inventory(column.ok_or_else(|| {
                    format!("{name:?}: the inventory has {}", Self::INVENTORY.join(", "))
                })?)
            }
            _ => Self::Line(name.parse().map_err(|_| {
                format!(
                    "{name:?} is no dimension of cost; there are {}, {}, and with a name behind \
                     the point {}",
                    Dimension::PLAIN.join(", "),
                    Self::PLAIN.join(", "),
                    Self::FAMILIES.join(", "),
                )
            })?),
        })
    }
}

impl fmt::Display for Axis {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(dimension) => dimension.fmt(out),
            Self::Project => out.write_str("project"),
            Self::Domain => out.write_str("domain"),
            Self::Node => out.write_str("node"),
            Self::Level(level) => write!(out, "level.{level}"),
            Self::PlacedBy => out.write_str("placed_by"),
            Self::Rule => out.write_str("rule"),
            Self::EffectiveTag(key) => write!(out, "effective_tags.{key}"),
            Self::ResourceTag(key) => write!(out, "resource_tags.{key}"),
            Self::ProjectTag(key) => write!(out, "project_tags.{key}"),
            Self::Inventory(column) => write!(out, "inventory.{column}"),
        }
    }
}

/// What the inventory knows of a billed resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Owned {
    /// Who owns it.
    pub project: Option<Uuid>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// What [`Axis::INVENTORY`] names.
    pub columns: BTreeMap<&'static str, String>,
}

/// The estate at a moment, as far as costs need it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Estate {
    /// By id.
    pub projects: BTreeMap<Uuid, Project>,
    /// Names, by id.
    pub domains: BTreeMap<Uuid, String>,
    /// The tree that is asked of.
    pub organisation: Option<Organisation>,
    /// By their ids in the cloud.
    pub resources: BTreeMap<String, Owned>,
}

/// The entries of the tag list, by resource; of those that hold the last one counts.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TagList {
    entries: BTreeMap<String, Vec<(Uuid, Entry)>>,
}

impl TagList {
    /// Of these entries with their ids. Of several that hold, the one that holds since the latest day
    /// counts, and of these that of the greatest id.
    pub fn new(entries: impl IntoIterator<Item = (Uuid, Entry)>) -> Self {
        let mut list = Self::default();
        for (id, entry) in entries {
            list.entries.entry(entry.resource.clone()).or_default().push((id, entry));
        }
        for entries in list.entries.values_mut() {
            entries.sort_by_key(|(id, entry)| (entry.from, *id));
        }
        list
    }

    /// Every resource it speaks of, with whether what it says changes with the day.
    pub fn resources(&self) -> impl Iterator<Item = (&str, bool)> {
        self.entries.iter().map(|(resource, entries)| {
            let dated = entries.iter().any(|(_, one)| one.from.is_some() || one.to.is_some());
            (resource.as_str(), dated)
        })
    }

    fn of(&self, resource: &str, day: Option<NaiveDate>) -> Option<&Entry> {
        let entries = self.entries.get(resource)?;
        let holds = |entry: &Entry| match day {
            Some(day) => entry.holds(day),
            None => entry.from.is_none() && entry.to.is_none(),
        };
        entries.iter().rev().map(|(_, entry)| entry).find(|entry| holds(entry))
    }
}

/// What projects are called as centres, and which project a centre is.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Centres {
    names: BTreeMap<Uuid, String>,
    ids: BTreeMap<String, Uuid>,
}

impl Centres {
    /// Of the projects of an estate. Two of one name are told apart by their ids.
    pub fn of(projects: &BTreeMap<Uuid, Project>) -> Self {
        let mut by_name: BTreeMap<&str, Vec<Uuid>> = BTreeMap::new();
        for (id, project) in projects {
            by_name.entry(&project.name).or_default().push(*id);
        }
        let mut centres = Self::default();
        for (name, own) in by_name {
            for id in &own {
                let centre = if own.len() == 1 { name.to_owned() } else { format!("{name} {id}") };
                centres.ids.insert(id.to_string(), *id);
                centres.ids.insert(centre.clone(), *id);
                centres.names.insert(*id, centre);
            }
        }
        centres
    }

    /// The project that a rule means by a name or an id.
    pub fn project(&self, centre: &str) -> Option<Uuid> {
        self.ids.get(centre).copied()
    }

    /// What the project is called as a centre.
    pub fn name(&self, project: Uuid) -> Option<&str> {
        self.names.get(&project).map(String::as_str)
    }
}

/// All that whose costs are depends on, beside the rules and the lines.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// What people say.
    pub tag_list: TagList,
    /// What projects are called.
    pub centres: Centres,
    /// The estate at the moment that is asked of.
    pub now: Arc<Estate>,
    /// The estate at the end of each month, where it differs.
    pub then: BTreeMap<BillingMonth, Arc<Estate>>,
}

/// Resources that may be taken for each other: all that a question asks of them is the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alike {
    of: HashMap<String, u32, FixedState>,
    names: Vec<String>,
}

impl Alike {
    /// Which of [`Self::name`] stands for a resource; none when nothing is known of it.
    pub fn of(&self, resource: &str) -> Option<u32> {
        self.of.get(resource).copied()
    }

    /// A resource that stands for others.
    pub fn name(&self, of: u32) -> &str {
        self.names.get(of as usize).map_or("", String::as_str)
    }

    /// The resource that stands for this one; empty when nothing is known of it.
    pub fn stands_for(&self, resource: &str) -> &str {
        self.of(resource).map_or("", |of| self.name(of))
    }
}

/// One thing that a question asks of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Trait<'a> {
    /// The tag list says nothing of it, or an estate does not know it.
    Nothing,
    Project(Option<Uuid>),
    Listed(Option<&'a Option<String>>),
    Text(Option<&'a String>),
}

/// What is told of lines that have much in common: their values, by dimension.
pub trait Looked {
    /// The value; empty when they have none.
    fn value(&self, dimension: &Dimension) -> &str;
}

/// Where lines belong, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The centre, as projects are called.
    pub centre: String,
    /// The project that it is; none for a pool and for what nothing places.
    pub project: Option<Uuid>,
    /// What placed it.
    pub by: By,
    /// The rule's name, when it was a rule.
    pub rule: Option<String>,
}

impl Surroundings {
    /// Names all of it: the same digest, the same places.
    pub fn digest(&self) -> String {
        let then: Vec<_> = self.then.iter().map(|(month, one)| (month, one.as_ref())).collect();
        let all = (&self.tag_list, &self.centres, self.now.as_ref(), then);
        hex(&sha256(&canonical_bytes(&all)))
    }

    /// As it was at the end of the month; what was not known then, as it is known now.
    fn known<'a, T>(
        &'a self,
        month: Option<BillingMonth>,
        pick: impl Fn(&'a Estate) -> Option<T>,
    ) -> Option<T> {
        let then = month.and_then(|month| self.then.get(&month));
        then.and_then(|then| pick(then)).or_else(|| pick(&self.now))
    }

    fn project(&self, month: Option<BillingMonth>, id: Uuid) -> Option<&Project> {
        self.known(month, |estate| estate.projects.get(&id))
    }

    fn tag<'a>(&'a self, look: &'a impl Looked, key: &str, around: &Around<'a>) -> &'a str {
        let listed = around.entry.and_then(|entry| entry.tags.get(key));
        if let Some(listed) = listed {
            match listed {
                None => return "",
                Some(value) if !value.is_empty() => return value,
                Some(_) => {}
            }
        }
        let of = |tags: &'a BTreeMap<String, String>| tags.get(key).map_or("", String::as_str);
        let bill = look.value(&Dimension::Tag(key.to_owned()));
        let resource = || around.owned.map_or("", |owned| of(&owned.tags));
        let project = || {
            let id = around.entry.and_then(|entry| entry.project);
            let id = id.or_else(|| around.owned.and_then(|owned| owned.project));
            let project = id.and_then(|id| self.project(around.month, id));
            project.map_or("", |project| of(&project.tags))
        };
        [bill, resource(), project()].into_iter().find(|value| !value.is_empty()).unwrap_or("")
    }

    fn around<'a>(&'a self, look: &impl Looked) -> Around<'a> {
        let month = look.value(&Dimension::Plain("month")).parse().ok();
        let resource = look.value(&Dimension::Plain("resource"));
        if resource.is_empty() {
            return Around { month, entry: None, owned: None };
        }
        let day = look.value(&Dimension::Plain("day")).parse().ok();
        let entry = self.tag_list.of(resource, day);
        Around { month, entry, owned: self.known(month, |estate| estate.resources.get(resource)) }
    }

    /// The place of lines, and what they have on each axis. They are told by the dimensions of
    /// [`needs`].
    pub fn locate(
        &self,
        look: &impl Looked,
        placing: &Placing<'_>,
        axes: &[Axis],
    ) -> (Place, Vec<String>) {
        let around = self.around(look);
        let values: Vec<&str> = placing
            .dimensions()
            .iter()
            .map(|dimension| match dimension {
                Dimension::Tag(key) => self.tag(look, key, &around),
                Dimension::Plain(_) => look.value(dimension),
            })
            .collect();
        let centre = |id: Option<Uuid>| id.and_then(|id| self.centres.name(id));
        let known = Known {
            owner: centre(around.entry.and_then(|entry| entry.project)),
            inventory: centre(around.owned.and_then(|owned| owned.project)),
        };
        let placed = placing.of(&values, known);
        let project = self.centres.project(placed.centre);
        let place = Place {
            centre: centre(project).unwrap_or(placed.centre).to_owned(),
            project,
            by: placed.by,
            rule: placed.rule.map(str::to_owned),
        };
        let values = axes.iter().map(|axis| self.axis(axis, look, &place, &around)).collect();
        (place, values)
    }

    /// The domain that a project was in at the end of a month.
    pub fn domain_of(&self, id: Uuid, month: Option<BillingMonth>) -> Option<Uuid> {
        self.project(month, id).and_then(|project| project.domain)
    }

    /// What a project's costs have on an axis that depends on the project alone.
    pub fn of_project(&self, axis: &Axis, id: Uuid, month: Option<BillingMonth>) -> String {
        let Some(project) = self.project(month, id) else { return String::new() };
        let text = |text: Option<&String>| text.cloned().unwrap_or_default();
        let tree = || self.known(month, |estate| estate.organisation.as_ref());
        let path = || tree().and_then(|tree| Some(tree.path(tree.node_of(id, project)?)));
        match axis {
            Axis::Domain => text(
                project
                    .domain
                    .and_then(|domain| self.known(month, |estate| estate.domains.get(&domain))),
            ),
            Axis::Node => path().map(|path| path.join("/")).unwrap_or_default(),
            Axis::Level(level) => {
                let at = tree().and_then(|tree| tree.levels.iter().position(|one| one == level));
                let part = at.and_then(|at| Some((*path()?.get(at)?).to_owned()));
                part.unwrap_or_default()
            }
            Axis::ProjectTag(key) => text(project.tags.get(key)),
            _ => String::new(),
        }
    }

    /// Which resources may be taken for each other for these places and axes, whatever the month;
    /// days aside. None when it matters which resource it is.
    pub fn alike(&self, placing: &Placing<'_>, axes: &[Axis]) -> Option<Alike> {
        let resource = Dimension::Plain("resource");
        if placing.dimensions().contains(&resource) || axes.contains(&Axis::Line(resource)) {
            return None;
        }
        let of_places = placing.dimensions().iter().filter_map(|dimension| match dimension {
            Dimension::Tag(key) => Some(key.as_str()),
            Dimension::Plain(_) => None,
        });
        let of_axes = axes.iter().filter_map(|axis| match axis {
            Axis::EffectiveTag(key) | Axis::ResourceTag(key) => Some(key.as_str()),
            _ => None,
        });
        let keys: BTreeSet<&str> = of_places.chain(of_axes).collect();
        let columns: BTreeSet<&str> = axes
            .iter()
            .filter_map(
                |axis| if let Axis::Inventory(column) = axis { Some(*column) } else { None },
            )
            .collect();
        // What changes with the day is told apart by resource and day.
        let dated: BTreeSet<&str> =
            self.tag_list.resources().filter(|(_, dated)| *dated).map(|(one, _)| one).collect();
        let then: Vec<&Estate> =
            self.then.values().map(Arc::as_ref).filter(|one| !one.resources.is_empty()).collect();
        let listed = self.tag_list.entries.keys();
        let others = then.iter().flat_map(|one| one.resources.keys()).chain(listed);
        let others: BTreeSet<&String> =
            others.filter(|one| !self.now.resources.contains_key(*one)).collect();
        let others = others.into_iter().map(|resource| (resource, None));
        let now = self.now.resources.iter().map(|(resource, owned)| (resource, Some(owned)));
        let mut alike = Alike::default();
        let mut known: HashMap<Vec<Trait<'_>>, u32, FixedState> = HashMap::default();
        let mut traits = Vec::new();
        for (resource, now) in now.chain(others) {
            if dated.contains(resource.as_str()) {
                continue;
            }
            traits.clear();
            if let Some(entry) = self.tag_list.of(resource, None) {
                traits.push(Trait::Project(entry.project));
                traits.extend(keys.iter().map(|key| Trait::Listed(entry.tags.get(*key))));
            } else {
                traits.push(Trait::Nothing);
            }
            let then = then.iter().map(|estate| estate.resources.get(resource));
            for owned in then.chain([now]) {
                let Some(owned) = owned else {
                    traits.push(Trait::Nothing);
                    continue;
                };
                traits.push(Trait::Project(owned.project));
                traits.extend(keys.iter().map(|key| Trait::Text(owned.tags.get(*key))));
                let columns = columns.iter().map(|column| owned.columns.get(*column));
                traits.extend(columns.map(Trait::Text));
            }
            let of = match known.get(traits.as_slice()) {
                Some(of) => *of,
                None => {
                    let next = alike.names.len() as u32;
                    alike.names.push(resource.clone());
                    known.insert(traits.clone(), next);
                    next
                }
            };
            alike.of.insert(resource.clone(), of);
        }
        Some(alike)
    }

    fn axis(&self, axis: &Axis, look: &impl Looked, place: &Place, around: &Around<'_>) -> String {
        let of_owned = |pick: &dyn Fn(&Owned) -> Option<String>| {
            around.owned.and_then(pick).unwrap_or_default()
        };
        match axis {
            Axis::Line(dimension) => look.value(dimension).to_owned(),
            Axis::Project => place.centre.clone(),
            Axis::PlacedBy => place.by.name().to_owned(),
            Axis::Rule => place.rule.clone().unwrap_or_default(),
            Axis::EffectiveTag(key) => self.tag(look, key, around).to_owned(),
            Axis::ResourceTag(key) => of_owned(&|owned| owned.tags.get(key).cloned()),
            Axis::Inventory(column) => of_owned(&|owned| owned.columns.get(column).cloned()),
            Axis::Domain | Axis::Node | Axis::Level(_) | Axis::ProjectTag(_) => {
                place.project.map_or_else(String::new, |id| self.of_project(axis, id, around.month))
            }
        }
    }
}

/// What lines meet: their month, their resource's entry and owner.
struct Around<'a> {
    month: Option<BillingMonth>,
    entry: Option<&'a Entry>,
    owned: Option<&'a Owned>,
}

/// The dimensions of lines that [`Surroundings::locate`] looks at for these axes, each once.
/// `resource` and `day` are not among them unless an axis asks for them: they are only needed for
/// resources that the tag list or the inventory knows.
pub fn needs(placing: &Placing<'_>, axes: &[Axis]) -> Vec<Dimension> {
    let mut all: BTreeSet<Dimension> = placing.dimensions().iter().cloned().collect();
    all.insert(Dimension::Plain("month"));
    all.extend(axes.iter().filter_map(|axis| match axis {
        Axis::Line(dimension) => Some(dimension.clone()),
        Axis::EffectiveTag(key) => Some(Dimension::Tag(key.clone())),
        _ => None,
    }));
    all.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::finops::rules::Rules;

    struct Row(BTreeMap<&'static str, &'static str>);

    impl Looked for Row {
        fn value(&self, dimension: &Dimension) -> &str {
            self.0.get(dimension.to_string().as_str()).copied().unwrap_or("")
        }
    }

    fn id(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    fn project(name: &str, domain: Option<u128>, team: &str) -> Project {
        let tags = [("team".to_owned(), team.to_owned())].into();
        Project { name: name.into(), domain: domain.map(id), tags, ..Project::default() }
    }

    fn organisation(lab_in: &str) -> Organisation {
        serde_json::from_value(json!({
            "name": "Acme", "levels": ["division", "team"],
            "nodes": {"a": {"name": "Retail"}, "b": {"name": "Research"},
                      "web": {"name": "Web", "parent": "a"}},
            "bound": {id(1).to_string(): "web", id(2).to_string(): lab_in},
            "rules": [], "archived": false,
        }))
        .unwrap()
    }

    fn surroundings() -> Surroundings {
        let now = Estate {
            projects: [(id(1), project("shop", Some(9), "w")), (id(2), project("lab", None, "l"))]
                .into(),
            domains: [(id(9), "retail".to_owned())].into(),
            organisation: Some(organisation("a")),
            resources: [(
                "i-2".to_owned(),
                Owned {
                    project: Some(id(2)),
                    tags: [("env".to_owned(), "dev".to_owned())].into(),
                    columns: [("kind", "server".to_owned())].into(),
                },
            )]
            .into(),
        };
        let then = Estate { organisation: Some(organisation("b")), ..now.clone() };
        let entry = |value: serde_json::Value| serde_json::from_value::<Entry>(value).unwrap();
        Surroundings {
            tag_list: TagList::new([
                (id(5), entry(json!({"resource": "i-1", "project": id(1), "to": "2026-10-15"}))),
                (id(6), entry(json!({"resource": "i-2", "tags": {"env": null, "cost": "77"}}))),
            ]),
            centres: Centres::of(&now.projects),
            then: [("2026-10".parse().unwrap(), Arc::new(then))].into(),
            now: Arc::new(now),
        }
    }

    #[test]
    fn a_line_meets_the_estate_of_its_month_and_says_what_placed_it() {
        let rules: Rules = serde_json::from_value(json!({
            "attribution": [{"name": "dev", "centre": "sand", "conditions":
                [{"dimension": "tags.env", "values": ["dev"]}]}],
            "accounts": {"42": "lab"},
        }))
        .unwrap();
        let placing = rules.placing().unwrap();
        let all = surroundings();
        let axes = [
            "project",
            "placed_by",
            "rule",
            "domain",
            "node",
            "level.division",
            "effective_tags.env",
            "effective_tags.cost",
            "resource_tags.env",
            "project_tags.team",
            "inventory.kind",
        ]
        .map(|name| name.parse::<Axis>().unwrap());
        let row = |values: &[(&'static str, &'static str)]| {
            let (_, values) = all.locate(&Row(values.iter().copied().collect()), &placing, &axes);
            values.join("|")
        };
        let october = ("month", "2026-10");
        assert_eq!(
            row(&[october, ("resource", "i-1"), ("day", "2026-10-14"), ("tags.env", "dev")]),
            "shop|owner||retail|Retail/Web|Retail|dev|||w|"
        );
        assert_eq!(
            row(&[october, ("resource", "i-1"), ("day", "2026-10-15"), ("tags.env", "dev")]),
            "sand|rule|dev||||dev||||",
            "the owner is one no more; a pool is in no domain"
        );
        assert_eq!(
            row(&[october, ("resource", "i-2"), ("tags.env", "dev")]),
            "lab|inventory|||Research|Research||77|dev|l|server",
            "the tag list takes a tag away, and the tree is that of October"
        );
        assert_eq!(
            row(&[("month", "2026-11"), ("resource", "i-2")]),
            "lab|inventory|||Retail|Retail||77|dev|l|server"
        );
        assert_eq!(
            row(&[october, ("billing_account", "42")]),
            "lab|account|||Research|Research||||l|"
        );
        assert_eq!(row(&[october]), "unallocated|nothing|||||||||");
    }

    #[test]
    fn an_axis_reads_as_it_is_written() {
        assert!(
            Axis::PLAIN.is_sorted() && Axis::INVENTORY.is_sorted() && Axis::FAMILIES.is_sorted()
        );
        let families = Axis::FAMILIES.map(|family| format!("{family}.{}", "kind"));
        for name in Axis::PLAIN.map(str::to_owned).into_iter().chain(families) {
            assert_eq!(name.parse::<Axis>().unwrap().to_string(), name);
        }
        for name in ["projct", "level", "level.", "inventory.colour", "project.x"] {
            assert!(name.parse::<Axis>().is_err(), "{name}");
        }
    }

    #[test]
    fn two_projects_of_one_name_are_two_centres() {
        let twins = [(id(1), project("shop", None, "")), (id(2), project("shop", None, ""))].into();
        let centres = Centres::of(&twins);
        assert_ne!(centres.name(id(1)), centres.name(id(2)));
        assert_eq!(centres.project("shop"), None, "nobody can tell which is meant");
        assert_eq!(centres.project(&id(2).to_string()), Some(id(2)));
    }

    #[test]
    fn resources_are_alike_when_all_that_is_asked_of_them_is_the_same() {
        let id = Uuid::from_u128(7);
        let owned = |project, env: &str, name: &str| Owned {
            project,
            tags: BTreeMap::from([("env".to_owned(), env.to_owned())]),
            columns: BTreeMap::from([("name", name.to_owned())]),
        };
        let estate = |resources: &[(&str, Owned)]| {
            let resources = resources.iter().cloned();
            let resources = resources.map(|(resource, owned)| (resource.to_owned(), owned));
            Arc::new(Estate { resources: resources.collect(), ..Estate::default() })
        };
        let month: BillingMonth = "2026-10".parse().unwrap();
        let around = Surroundings {
            now: estate(&[
                ("a", owned(Some(id), "prod", "1")),
                ("b", owned(Some(id), "prod", "2")),
                ("c", owned(None, "prod", "3")),
                ("d", owned(Some(id), "prod", "4")),
            ]),
            then: BTreeMap::from([(month, estate(&[("d", owned(None, "dev", "4"))]))]),
            ..Surroundings::default()
        };
        let rules = Rules::default();
        let placing = rules.placing().unwrap();
        let groups = |axes: &[Axis]| {
            let alike = around.alike(&placing, axes).unwrap();
            ["a", "b", "c", "d", "e"].map(|resource| alike.stands_for(resource).to_owned())
        };
        assert_eq!(groups(&[Axis::ResourceTag("env".into())]), ["a", "a", "c", "d", ""]);
        assert_eq!(groups(&[Axis::Inventory("name")]), ["a", "b", "c", "d", ""]);
        let which = [Axis::Line(Dimension::Plain("resource"))];
        assert_eq!(around.alike(&placing, &which), None);
    }
}
