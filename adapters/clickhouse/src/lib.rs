//! ClickHouse as the engine that sums bills' lines: for estates whose bills are too many for one
//! machine's memory.
//!
//! It takes the place of the lake's own cube and of nothing else: files are read and lines are kept
//! by the store behind it, and ClickHouse holds a copy that can be lost. A segment is copied when it
//! is first asked for, into the partition of its own: into a table beside at first, where it must
//! come to what its import said, then with `REPLACE PARTITION`, so that all of it counts or nothing,
//! however often and by how many servers it is copied. A bill that is restated names other
//! segments; nothing is deleted for it.
#![warn(missing_docs)]

mod copy;
mod schema;
mod sql;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use clickhouse::{Client, Compression, Row, error::Error};
use commands::ports::{
    BillFault, BillStore, CostQuery, Lines, Origins, Part, ReadBill, Reading, Repeats, Wanted,
};
use domain::finops::{
    amount::{Amount, Currency},
    bill::Segment,
    cost::{Dimension, Sum, Table, TooLarge},
    line::Line,
};
use serde::Deserialize;
use tokio::runtime::Handle;
use url::Url;

use schema::Schema;
use sql::Sql;

/// Most segments that one question names.
const SEGMENTS_AT_ONCE: usize = 500;

/// Where ClickHouse is, and how lines lie there.
#[derive(Clone, Debug)]
pub struct Options {
    /// `http://user@host:8123/database`, or `https`. Its database is made when it is missing.
    pub url: String,
    /// The user's password.
    pub password: Option<String>,
    /// Keys of tags that have a column of their own: those that are asked for most.
    pub tags: Vec<String>,
}

/// Why ClickHouse cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClickHouseFault {
    /// The URL does not say where it is.
    #[error("{0:?} is no URL such as http://user@host:8123/database")]
    Url(String),
    /// It does not answer, or not as it should.
    #[error("ClickHouse: {0}")]
    Unavailable(#[from] Error),
}

/// A store of bills whose sums ClickHouse works out.
pub struct ClickHouse {
    behind: Arc<dyn BillStore>,
    client: Client,
    schema: Schema,
    runtime: Handle,
    /// Segments whose copies were seen to be whole.
    whole: Mutex<BTreeSet<String>>,
}

/// A row of an answer.
#[derive(Row, Deserialize)]
struct Group {
    keys: Vec<String>,
    code: String,
    amount: String,
    magnitude: String,
    lines: u64,
}

fn unavailable(fault: Error) -> BillFault {
    BillFault::Unavailable(format!("ClickHouse: {fault}"))
}

impl ClickHouse {
    /// Makes the database and the table where they are missing, and removes what copies that broke
    /// off have left. Lines are read from the store behind.
    pub async fn open(
        options: &Options,
        behind: Arc<dyn BillStore>,
    ) -> Result<Self, ClickHouseFault> {
        let wrong = || ClickHouseFault::Url(options.url.clone());
        let url = Url::parse(&options.url).map_err(|_| wrong())?;
        let host = url.host().ok_or_else(wrong)?;
        let port = url.port().map_or(String::new(), |port| format!(":{port}"));
        let database = url.path().trim_matches('/');
        if !["http", "https"].contains(&url.scheme()) || database.contains('/') {
            return Err(wrong());
        }
        let database = if database.is_empty() { "skyledger" } else { database };
        let mut client = Client::default()
            .with_url(format!("{}://{host}{port}", url.scheme()))
            .with_compression(Compression::None)
            // Lists of resources are long.
            .with_setting("max_query_size", "268435456");
        if !url.username().is_empty() {
            client = client.with_user(url.username());
        }
        if let Some(password) = &options.password {
            client = client.with_password(password);
        }
        let schema = Schema::new(database, options.tags.clone());
        for statement in schema.statements() {
            statement.query(&client).execute().await?;
        }
        let store = Self {
            behind,
            client,
            schema,
            runtime: Handle::current(),
            whole: Mutex::new(BTreeSet::new()),
        };
        store.sweep().await?;
        Ok(store)
    }

    /// What these segments come to that is asked for.
    async fn ask(&self, segments: &[&Segment], asked: &CostQuery) -> Result<Vec<Group>, BillFault> {
        let mut asked = asked.clone();
        for (dimension, filter) in &mut asked.filters {
            if !sql::is_told_by_the_engine(filter) {
                // Decided here, on the values there are, so that both engines mean the same.
                let values = self.schema.values(dimension, segments);
                let values = values.query(&self.client).fetch_all::<String>().await;
                *filter = sql::those_that_hold(filter, values.map_err(unavailable)?);
            }
        }
        let question = self.schema.question(&asked, segments);
        question.query(&self.client).fetch_all().await.map_err(unavailable)
    }

    /// How many lines of these segments there are.
    async fn count(&self, segments: &[&Segment]) -> Result<u64, BillFault> {
        let counted = Sql::of("SELECT count() FROM ")
            .table(&self.schema)
            .of_segments(segments)
            .query(&self.client);
        counted.fetch_one().await.map_err(unavailable)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that the segments are there, whole.
    fn provide(&self, segments: &[&Segment]) -> Result<(), BillFault> {
        for segment in segments {
            if !self.known().contains(&segment.digest) {
                self.copy(segment)?;
                self.known().insert(segment.digest.clone());
            }
        }
        Ok(())
    }
}

impl BillStore for ClickHouse {
    fn sums(&self, segments: &[&Segment], asked: &CostQuery) -> Result<Table, BillFault> {
        let mut table = Table::default();
        for some in segments.chunks(SEGMENTS_AT_ONCE) {
            self.provide(some)?;
            let lines: u64 = some.iter().map(|segment| segment.lines).sum();
            if self.runtime.block_on(self.count(some))? != lines {
                // Somebody has taken from the copy since: it is made again.
                tracing::warn!("lines in ClickHouse are not those that were copied: copied anew");
                for segment in some {
                    self.known().remove(&segment.digest);
                }
                self.provide(some)?;
            }
            for group in self.runtime.block_on(self.ask(some, asked))? {
                let (currency, sum) = read(&group)?;
                let keys = group.keys.into_iter().zip(&asked.groups).map(|(key, group)| {
                    match (&asked.alike, group) {
                        (Some(alike), Dimension::Plain("resource")) => {
                            alike.stands_for(&key).to_owned()
                        }
                        _ => key,
                    }
                });
                table.take(keys.collect(), currency, sum)?;
            }
        }
        Ok(table)
    }

    fn read(
        &self,
        file: &mut (dyn std::io::Read + Send),
        how: &Reading,
    ) -> Result<ReadBill, BillFault> {
        self.behind.read(file, how)
    }

    fn write(&self, lines: &mut dyn Iterator<Item = Line>) -> Result<Vec<Part>, BillFault> {
        self.behind.write(lines)
    }

    fn empty(&self) -> Result<String, BillFault> {
        self.behind.empty()
    }

    fn repeats(&self, segment: &str, others: &[&str]) -> Result<Repeats, BillFault> {
        self.behind.repeats(segment, others)
    }

    fn rest(&self, segment: &str, others: &[&str]) -> Result<Option<Part>, BillFault> {
        self.behind.rest(segment, others)
    }

    fn origins(
        &self,
        segments: &[&Segment],
        asked: &CostQuery,
        wanted: &Wanted<'_>,
        most: usize,
    ) -> Result<Origins, BillFault> {
        self.behind.origins(segments, asked, wanted, most)
    }

    fn lines(&self, digest: &str) -> Result<Lines, BillFault> {
        self.behind.lines(digest)
    }
}

/// What a row of an answer says. Sums are worked out with 76 digits, so one that an amount does not
/// hold is seen here.
fn read(group: &Group) -> Result<(Currency, Sum), BillFault> {
    let odd = |what: &str| BillFault::Unavailable(format!("ClickHouse answers {what:?}"));
    let currency = Currency::try_from(group.code.clone()).map_err(|_| odd(&group.code))?;
    let amount = |text: &str| text.parse::<Amount>().map_err(|_| BillFault::from(TooLarge));
    let (amount, magnitude) = (amount(&group.amount)?, amount(&group.magnitude)?);
    Ok((currency, Sum { amount, magnitude, lines: group.lines }))
}
