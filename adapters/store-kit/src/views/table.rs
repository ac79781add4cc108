//! How a view lies in a table: one row per version of a row, with the positions it was valid
//! from and to, the view's columns, and the body.
//!
//! ```text
//! v_<view>_<version>_<generation>
//!   key  from_position  to_position  <columns…>  body
//! ```
//!
//! A version that is still valid has [`LIVE`] as its end. Indexes come in two sets of the same
//! shape: over the live versions, for lists of now, and over the closed ones, which lists at a past
//! position read as well. So each version is in one set only.

use std::collections::HashSet;

use commands::ports::LogFault;
use projections::view::{ColumnType, Indexing, View};
use serde::{Deserialize, Serialize};

use super::sql::Dialect;

/// The end of a version that has not ended.
pub const LIVE: i64 = i64::MAX;

/// One column of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableColumn {
    /// As in queries.
    pub name: String,
    /// Its type.
    #[serde(with = "column_type")]
    pub column_type: ColumnType,
    /// How lists find rows by it.
    #[serde(with = "indexing")]
    pub indexing: Indexing,
}

/// One table of a view. It knows its own columns, so a table of an older version of the view can
/// be read while the newer one is built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// The view.
    pub view: String,
    /// The view's version whose fold filled it.
    pub version: u32,
    /// Goes up with every table of this view.
    pub generation: u64,
    /// In the order of [`View::columns`].
    pub columns: Vec<TableColumn>,
    /// See [`View::sort_columns`].
    pub sorts: Vec<String>,
}

/// Which versions an index is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Those that are valid now.
    Live,
    /// Those that have ended.
    Closed,
}

impl Tier {
    /// The condition, as literals: partial indexes are only found by literals.
    pub fn condition(self) -> &'static str {
        match self {
            Self::Live => "to_position = 9223372036854775807",
            Self::Closed => "to_position < 9223372036854775807",
        }
    }
}

/// One index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Its name, unique in a schema.
    pub name: String,
    /// The columns readers look for and sort by, in order; the last is `key`.
    pub columns: Vec<String>,
    /// Columns behind those, by which entries are told apart without reading their rows.
    pub covers: Vec<String>,
    /// What it is over.
    pub tier: Tier,
    /// Only over rows that have something in this column.
    pub something: Option<String>,
}

impl Table {
    /// The table of this generation for a view.
    pub fn of(view: &dyn View, generation: u64) -> Self {
        let columns = view.columns().iter().map(|column| TableColumn {
            name: column.name.to_owned(),
            column_type: column.column_type,
            indexing: column.indexing,
        });
        Self {
            view: view.name().to_owned(),
            version: view.version(),
            generation,
            columns: columns.collect(),
            sorts: view.sort_columns().iter().map(|&name| name.to_owned()).collect(),
        }
    }

    /// Its name: only letters of the view's own name and digits.
    pub fn name(&self) -> String {
        format!("v_{}_{}_{}", self.view, self.version, self.generation)
    }

    /// The place of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// Names become part of SQL, so they may only be snake case.
    pub fn check_names(&self) -> Result<(), LogFault> {
        let snake = |name: &String| {
            !name.is_empty()
                && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_')
                && !matches!(name.as_str(), "key" | "from_position" | "to_position" | "body")
        };
        let known = |name: &String| self.column(name).is_some();
        let names = || self.columns.iter().map(|column| &column.name);
        match names().chain([&self.view]).find(|name| !snake(name)) {
            Some(name) => {
                Err(LogFault::Unexpected(format!("{name:?} cannot name a view or column")))
            }
            None => match self.sorts.iter().find(|name| !known(name)) {
                Some(name) => Err(LogFault::Unexpected(format!(
                    "view {} sorts by {name}, which is no column of it",
                    self.view
                ))),
                None => Ok(()),
            },
        }
    }

    /// The table without any index.
    pub fn create_sql(&self, dialect: Dialect) -> String {
        let mut columns = String::new();
        for column in &self.columns {
            let of_type = dialect.column(column.column_type);
            columns.extend([", \"", &column.name, "\" ", of_type]);
        }
        let text = dialect.column(ColumnType::Text);
        let integer = dialect.column(ColumnType::Integer);
        // The body comes last: a scan that only looks at columns need not read past them.
        format!(
            "CREATE TABLE {name} (key {text} NOT NULL, from_position {integer} NOT NULL, \
             to_position {integer} NOT NULL{columns}, body {bytes} NOT NULL)",
            name = self.name(),
            bytes = dialect.bytes(),
        )
    }

    /// The index by which a row is found by its key while a table is still being built.
    pub fn key_index_sql(&self) -> String {
        format!(
            "CREATE UNIQUE INDEX IF NOT EXISTS {name}_pk ON {name} (key, from_position)",
            name = self.name()
        )
    }

    /// Every index, to be made when the table is filled.
    pub fn index_sql(&self, dialect: Dialect) -> Vec<String> {
        let name = self.name();
        let mut all = vec![
            self.key_index_sql(),
            // What changed between two positions.
            format!("CREATE INDEX {name}_from ON {name} (from_position, key)"),
            format!(
                "CREATE INDEX {name}_to ON {name} (to_position, key) WHERE {}",
                Tier::Closed.condition()
            ),
        ];
        for index in self.indexes() {
            if index == self.keys_index(index.tier) {
                continue;
            }
            let mut columns = String::new();
            for column in index.columns.iter().chain(&index.covers) {
                columns.extend(["\"", column, "\"", dialect.nulls_first(), ", "]);
            }
            // A live row that changes keeps its place in the indexes of the columns that do not:
            // so no live index holds the position it is from.
            let validity = match index.tier {
                Tier::Live => "",
                Tier::Closed => ", from_position, to_position",
            };
            let something = match &index.something {
                Some(column) => format!(" AND \"{column}\" IS NOT NULL"),
                None => String::new(),
            };
            all.push(format!(
                "CREATE INDEX {} ON {name} ({}{validity}) WHERE {}{something}",
                index.name,
                columns.trim_end_matches([',', ' ']),
                index.tier.condition()
            ));
        }
        all
    }

    /// The indexes that lists use.
    ///
    /// The first column of a view, when it makes groups, *leads*: nearly every query fixes it (the
    /// inventory's kind), so it stands before the sort columns. Then:
    ///
    /// - *walks*: behind the lead, by key and by each sort column;
    /// - by each column that makes groups, and the lead, in the order of the first sort column,
    ///   over live versions;
    /// - by each column that finds.
    ///
    /// A walk covers the columns of groups, so that rows of other groups are passed by without
    /// being read. Walks over live versions in an order that changes rarely do not: a row that
    /// changes its group would change them. Closed versions have no indexes of groups: every
    /// change of a row writes one, and few lists look at the past.
    pub fn indexes(&self) -> Vec<Index> {
        let is = |column: &TableColumn, indexing| column.indexing == indexing;
        let lead = self.columns.first().filter(|first| is(first, Indexing::Groups));
        let lead: Vec<&str> = lead.iter().map(|column| column.name.as_str()).collect();
        let groups: Vec<&str> = self
            .columns
            .iter()
            .filter(|column| is(column, Indexing::Groups) || is(column, Indexing::Sparse))
            .map(|column| column.name.as_str())
            .filter(|name| !lead.contains(name))
            .collect();
        let first_sort = self.sorts.first().map(String::as_str);
        let mut all = Vec::new();
        for tier in [Tier::Live, Tier::Closed] {
            let mut shapes: Vec<(Vec<&str>, Vec<&str>, Option<&str>)> = Vec::new();
            let walks = [None].into_iter().chain(self.sorts.iter().map(|sort| Some(sort.as_str())));
            for sort in walks {
                let still = sort.is_none() || sort == first_sort;
                let covers = if tier == Tier::Live && still { &[][..] } else { &groups[..] };
                let shape = lead.iter().copied().chain(sort).collect();
                shapes.push((shape, covers.to_vec(), None));
            }
            for column in &self.columns {
                let name = column.name.as_str();
                let shape: Vec<&str> = match column.indexing {
                    Indexing::Groups | Indexing::Sparse if tier == Tier::Live => {
                        [name].into_iter().chain(lead.iter().copied()).chain(first_sort).collect()
                    }
                    Indexing::Finds => vec![name],
                    _ => continue,
                };
                if lead.contains(&name) {
                    continue;
                }
                let something = (column.indexing != Indexing::Groups).then_some(name);
                shapes.push((shape, Vec::new(), something));
            }
            let letter = if tier == Tier::Live { "l" } else { "c" };
            for (number, (mut shape, mut covers, something)) in shapes.into_iter().enumerate() {
                let mut seen = HashSet::new();
                shape.retain(|name| seen.insert(*name));
                covers.retain(|name| seen.insert(*name));
                let strings = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
                all.push(Index {
                    name: format!("{}_{letter}{number}", self.name()),
                    columns: strings(shape.into_iter().chain(["key"]).collect()),
                    covers: strings(covers),
                    tier,
                    something: something.map(str::to_owned),
                });
            }
        }
        for tier in [Tier::Live, Tier::Closed] {
            all.push(self.keys_index(tier));
        }
        all
    }

    /// By key alone every version is found by one index.
    fn keys_index(&self, tier: Tier) -> Index {
        Index {
            name: format!("{}_pk", self.name()),
            columns: vec!["key".to_owned()],
            covers: Vec::new(),
            tier,
            something: None,
        }
    }
}

mod column_type {
    use super::ColumnType;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(
        column_type: &ColumnType,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match column_type {
            ColumnType::Text => "text",
            ColumnType::Integer => "integer",
            ColumnType::Boolean => "boolean",
        })
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<ColumnType, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "text" => Ok(ColumnType::Text),
            "integer" => Ok(ColumnType::Integer),
            "boolean" => Ok(ColumnType::Boolean),
            other => Err(D::Error::custom(format!("column type {other} is not known"))),
        }
    }
}

mod indexing {
    use super::Indexing;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(
        indexing: &Indexing,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match indexing {
            Indexing::None => "none",
            Indexing::Groups => "groups",
            Indexing::Sparse => "sparse",
            Indexing::Finds => "finds",
        })
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Indexing, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "none" => Ok(Indexing::None),
            "groups" => Ok(Indexing::Groups),
            "sparse" => Ok(Indexing::Sparse),
            "finds" => Ok(Indexing::Finds),
            other => Err(D::Error::custom(format!("indexing {other} is not known"))),
        }
    }
}
