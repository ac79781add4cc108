//! How a view lies in a table: one row per version of a row, with the positions it was valid
//! from and to, the view's columns, and the body.
//!
//! ```text
//! v_<view>_<version>_<generation>
//!   key  from_position  to_position  <columns…>  body
//! ```
//!
//! A column that an index has keeps so much of a text, and no more: see [`Most`].
//!
//! A version that is still valid has [`LIVE`] as its end. Indexes come in two sets of the same
//! shape: over the live versions, for lists of now, and over the closed ones, which lists at a past
//! position read as well. So each version is in one set only.

use commands::ports::LogFault;
use projections::view::{ColumnType, Indexing, View};
use serde::{Deserialize, Serialize};

use super::sql::{Dialect, storable};

/// The end of a version that has not ended.
pub const LIVE: i64 = i64::MAX;

/// How much of a column's text is kept.
///
/// PostgreSQL refuses a row of which an index's entry is longer than a third of a page, and the row
/// after that one would never come. So a text in an index is cut, in both stores alike, and so is
/// what it is compared with: of texts that begin the same for so long, a filter finds all or none,
/// and a list has them in the order of their keys. The body has the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Most(Option<usize>);

impl Most {
    /// Bytes of what makes groups. A walk's entry has all of these columns.
    const GROUP: Self = Self(Some(128));
    /// Bytes of what is found or sorted by: 255 characters of any script, as names have in clouds.
    const FOUND: Self = Self(Some(1_024));

    /// All of it.
    pub(crate) const ALL: Self = Self(None);

    fn of_column(indexing: Indexing, sorts: bool) -> Self {
        match indexing {
            Indexing::Groups | Indexing::Sparse => Self::GROUP,
            Indexing::Finds => Self::FOUND,
            Indexing::None if sorts => Self::FOUND,
            Indexing::None => Self::ALL,
        }
    }

    /// Of every column of a view.
    pub(crate) fn of(view: &dyn View) -> Vec<Self> {
        let sorts = view.sort_columns();
        let columns = view.columns().iter();
        columns.map(|one| Self::of_column(one.indexing, sorts.contains(&one.name))).collect()
    }

    /// What both stores can hold of a text.
    pub(crate) fn kept(self, text: String) -> String {
        let mut text = storable(text);
        if let Some(most) = self.0 {
            text.truncate(text.floor_char_boundary(most));
        }
        text
    }
}

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
    /// The columns readers look for and sort by, in order.
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

    /// How much of a column's text is kept.
    pub(crate) fn most(&self, column: &TableColumn) -> Most {
        Most::of_column(column.indexing, self.sorts.contains(&column.name))
    }

    /// Names become part of SQL, so they may only be snake case.
    pub fn check_names(&self) -> Result<(), LogFault> {
        let snake = |name: &String| {
            !name.is_empty()
                && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_')
                && !matches!(name.as_str(), "id" | "key" | "from_position" | "to_position" | "body")
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

    /// The table without any index; in SQLite two, of which the other has the bodies.
    pub fn create_sql(&self, dialect: Dialect) -> String {
        let mut columns = String::new();
        for column in &self.columns {
            let of_type = dialect.column(column.column_type);
            columns.extend([", \"", &column.name, "\" ", of_type]);
        }
        let name = self.name();
        let text = dialect.column(ColumnType::Text);
        let integer = dialect.column(ColumnType::Integer);
        let bytes = dialect.bytes();
        let columns = format!(
            "key {text} NOT NULL, from_position {integer} NOT NULL, \
             to_position {integer} NOT NULL{columns}"
        );
        match dialect {
            Dialect::Postgres => format!("CREATE TABLE {name} ({columns}, body {bytes} NOT NULL)"),
            // PostgreSQL keeps what is large out of the way by itself. Here an index is made, and a
            // condition decided, from rows of a fifth of the size.
            Dialect::Sqlite => format!(
                "CREATE TABLE {name} (id INTEGER PRIMARY KEY, {columns}); \
                 CREATE TABLE {name}_body (id INTEGER PRIMARY KEY, body {bytes} NOT NULL)"
            ),
        }
    }

    /// A row's body, in a statement over the table.
    pub fn body_sql(&self, dialect: Dialect) -> String {
        match dialect {
            Dialect::Postgres => "body".to_owned(),
            Dialect::Sqlite => {
                format!(
                    "(SELECT body FROM {name}_body AS b WHERE b.id = {name}.id)",
                    name = self.name()
                )
            }
        }
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

    /// The indexes that lists use; the same for live versions and for closed ones.
    ///
    /// The first column of a view, when it makes groups, *leads*: nearly every query fixes it (the
    /// inventory's kind).
    ///
    /// - A *walk* gives the rows behind the lead in the order of a sort column. It covers the
    ///   columns that make groups, so rows of other groups are passed by without being read: a
    ///   large group has a page soon.
    /// - A *finder* has one column and finds few rows: those of a small group, or one by its id.
    ///   They are read and sorted.
    /// - In the order of keys the index of all keys is walked.
    pub fn indexes(&self) -> Vec<Index> {
        let lead = self.columns.first().filter(|first| first.indexing == Indexing::Groups);
        let groups: Vec<&str> = self
            .columns
            .iter()
            .filter(|column| matches!(column.indexing, Indexing::Groups | Indexing::Sparse))
            .map(|column| column.name.as_str())
            .collect();
        let strings = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let mut all = Vec::new();
        for tier in [Tier::Live, Tier::Closed] {
            let letter = if tier == Tier::Live { "l" } else { "c" };
            for (number, sort) in self.sorts.iter().enumerate() {
                let mut columns: Vec<&str> = lead.iter().map(|lead| lead.name.as_str()).collect();
                if !columns.contains(&sort.as_str()) {
                    columns.push(sort);
                }
                let mut covers = groups.clone();
                covers.retain(|name| !columns.contains(name));
                columns.push("key");
                all.push(Index {
                    name: format!("{}_{letter}w{number}", self.name()),
                    columns: strings(&columns),
                    covers: strings(&covers),
                    tier,
                    something: None,
                });
            }
            for (number, column) in self.columns.iter().enumerate() {
                // A walk of the lead finds as well.
                let walked = lead == Some(column) && !self.sorts.is_empty();
                if walked || column.indexing == Indexing::None {
                    continue;
                }
                let sparse = matches!(column.indexing, Indexing::Sparse | Indexing::Finds);
                all.push(Index {
                    name: format!("{}_{letter}f{number}", self.name()),
                    columns: vec![column.name.clone()],
                    covers: Vec::new(),
                    tier,
                    something: sparse.then(|| column.name.clone()),
                });
            }
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

#[cfg(test)]
mod tests {
    use projections::{view::KEY_BYTES_MAX, views::VIEWS};

    use super::*;

    /// The longest entry of a B-tree of PostgreSQL (`BTMaxItemSize`, pages of 8 KiB), in bytes.
    const ENTRY_BYTES_MAX: usize = 2_704;
    /// Of an entry itself, and of each value in it, at most: header, length, alignment.
    const OVERHEAD: (usize, usize) = (24, 11);

    #[test]
    fn no_row_of_any_view_is_too_long_for_an_index() {
        for view in VIEWS {
            let table = Table::of(*view, 1);
            for index in table.indexes() {
                // The key, and the positions of closed versions, are longer than any number.
                let texts = index.columns.iter().chain(&index.covers).map(|name| {
                    let column = table.column(name).map(|place| &table.columns[place]);
                    match column {
                        None => KEY_BYTES_MAX,
                        Some(column) if column.column_type != ColumnType::Text => 8,
                        Some(column) => table.most(column).0.unwrap_or(usize::MAX / 2),
                    }
                });
                let texts: Vec<_> = texts.chain([8, 8]).collect();
                let (whole, each) = OVERHEAD;
                let longest = whole + texts.iter().map(|bytes| bytes + each).sum::<usize>();
                assert!(longest <= ENTRY_BYTES_MAX, "{}: {longest}", index.name);
            }
        }
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        let most = Most(Some(4));
        for (text, kept) in
            [("abcd", "abcd"), ("abcde", "abcd"), ("abcé", "abc"), ("a\0b", "a\u{fffd}")]
        {
            assert_eq!(most.kept(text.to_owned()), kept);
        }
        assert_eq!(Most::ALL.kept("long".repeat(1_000)).len(), 4_000);
    }
}
