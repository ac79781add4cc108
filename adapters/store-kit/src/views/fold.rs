//! Folding records into versions of rows, in memory. Pure but for the view's own fold.
//!
//! A version is written once: when it is superseded before it was ever written, it goes out with
//! both its ends. States stay in memory, typed, up to a bound; those unused longest are let go.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::Arc,
};

use domain::log::{Position, Record};
use projections::view::{FoldFault, RowState, Value, View, stored_key};

use super::{store::Batch, table::Most};

/// One version of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The row's key.
    pub key: String,
    /// The position that made it.
    pub from: Position,
    /// The position that ended it; none while it is valid.
    pub to: Option<Position>,
    /// In the order of the view's columns.
    pub columns: Vec<Value>,
    /// Canonical JSON.
    pub body: Vec<u8>,
}

/// A row that is there now.
struct Slot {
    from: Position,
    body: Vec<u8>,
    state: Box<dyn RowState>,
    /// Whether the table has this version.
    stored: bool,
    used: u64,
}

impl Slot {
    /// The version it is.
    fn live(self, key: &str, most: &[Most]) -> Version {
        let columns = columns(&*self.state, most);
        Version { key: key.to_owned(), from: self.from, to: None, columns, body: self.body }
    }
}

/// What a record found of a row.
struct Kept {
    from: Position,
    /// Empty when the version is stored: nobody writes them again.
    columns: Vec<Value>,
    body: Vec<u8>,
    stored: bool,
}

/// The rows of some of a view's keys.
pub(crate) struct Rows {
    view: &'static dyn View,
    /// How much of each column is kept.
    most: Vec<Most>,
    /// None: the row is known not to be there.
    slots: HashMap<Arc<str>, Option<Slot>, BuildHasherDefault<DefaultHasher>>,
    round: u64,
    /// Most rows in memory between two batches.
    bound: usize,
    /// Versions that the batch made and that are not written yet.
    fresh: Vec<Arc<str>>,
    batch: Batch,
}

/// A record and a key it touches.
pub(crate) type Touch = (usize, Arc<str>);

/// The keys these records touch, in the order of the records, each once per record.
pub(crate) fn touches(view: &dyn View, records: &[Record], first: usize) -> Vec<Touch> {
    let mut all = Vec::with_capacity(records.len());
    for (index, record) in records.iter().enumerate() {
        let begin = all.len();
        for key in view.keys(record) {
            let key: Arc<str> = stored_key(&key).into();
            if !all[begin..].iter().any(|(_, other)| *other == key) {
                all.push((first + index, key));
            }
        }
    }
    all
}

/// Which of some shards a key belongs to; the same in every process.
pub(crate) fn shard_of(key: &str, shards: usize) -> usize {
    // The upper half: the lower chooses the place in a shard's own map.
    ((key_hash(key) >> 32) % shards as u64) as usize
}

impl Rows {
    /// No rows known. At most `bound` stay in memory between batches.
    pub(crate) fn new(view: &'static dyn View, bound: usize) -> Self {
        Self {
            view,
            most: Most::of(view),
            slots: HashMap::default(),
            round: 0,
            bound,
            fresh: Vec::new(),
            batch: Batch::default(),
        }
    }

    /// Whether it is known if there is a row of this key.
    pub(crate) fn knows(&self, key: &str) -> bool {
        self.slots.contains_key(key)
    }

    /// Tells of a row that the table has, or has not.
    pub(crate) fn learn(&mut self, key: &str, version: Option<Version>) -> Result<(), FoldFault> {
        let slot = version
            .map(|version| {
                let state = self.view.read(&version.body).map_err(|error| FoldFault {
                    view: self.view.name(),
                    position: version.from,
                    reason: format!("row {key} does not read: {error}"),
                })?;
                Ok(Slot {
                    from: version.from,
                    body: version.body,
                    state,
                    stored: true,
                    used: self.round,
                })
            })
            .transpose()?;
        self.slots.insert(key.into(), slot);
        Ok(())
    }

    /// Folds one record into one row. A key that is not known counts as not there.
    pub(crate) fn apply(&mut self, key: &Arc<str>, record: &Record) -> Result<(), FoldFault> {
        let position = record.position();
        let (state, kept) = match self.slots.remove(key).flatten() {
            Some(Slot { from, body, state, stored, .. }) => {
                // A version that goes out when this record ends it.
                let ending = !stored && from < position;
                let columns = if ending { columns(&*state, &self.most) } else { Vec::new() };
                (Some(state), Some(Kept { from, columns, body, stored }))
            }
            None => (None, None),
        };
        let slot = match self.view.fold(key, state, record)? {
            None => {
                self.close(key, kept, position);
                None
            }
            Some(state) => {
                let body = state.body();
                let (from, stored) = match kept {
                    // Columns and body are functions of one state.
                    Some(kept) if kept.body == body => (kept.from, kept.stored),
                    kept => {
                        self.close(key, kept, position);
                        self.fresh.push(Arc::clone(key));
                        (position, false)
                    }
                };
                Some(Slot { from, body, state, stored, used: self.round })
            }
        };
        self.slots.insert(Arc::clone(key), slot);
        Ok(())
    }

    fn close(&mut self, key: &Arc<str>, kept: Option<Kept>, at: Position) {
        match kept {
            Some(Kept { from, stored: true, .. }) => {
                self.batch.closes.push((key.to_string(), from, at));
            }
            // A row that was changed twice at one position keeps one version.
            Some(Kept { from, columns, body, .. }) if from < at => {
                let key = key.to_string();
                self.batch.inserts.push(Version { key, from, to: Some(at), columns, body });
            }
            _ => {}
        }
    }

    /// What the batch came to, the rows that are there now included, and lets rows go that are
    /// over the bound.
    pub(crate) fn flush(&mut self) -> Batch {
        let fresh = std::mem::take(&mut self.fresh);
        self.emit_live(fresh);
        self.round += 1;
        if self.slots.len() > self.bound {
            self.forget();
        }
        std::mem::take(&mut self.batch)
    }

    /// The versions that have ended so far, and those let go because they are over the bound:
    /// their keys go to `spilled`. For a table that is being built and written at its end.
    pub(crate) fn flush_ended(&mut self, spilled: &mut HashSet<u64>) -> Batch {
        self.round += 1;
        self.fresh.clear();
        if self.slots.len() > self.bound {
            for key in self.forget() {
                spilled.insert(key_hash(&key));
            }
        }
        std::mem::take(&mut self.batch)
    }

    /// Lets some rows go that are there, in the order of their keys; gives those that were never
    /// written. None when no row is left.
    pub(crate) fn drain(&mut self, most: usize) -> Option<Vec<Version>> {
        if self.fresh.is_empty() {
            self.fresh = self.slots.keys().cloned().collect();
            self.fresh.sort_unstable_by(|a, b| b.cmp(a));
        }
        let begin = self.fresh.len().checked_sub(1)?.saturating_sub(most - 1);
        let mut out = Vec::new();
        for key in self.fresh.drain(begin..).rev() {
            if let Some(slot) = self.slots.remove(&key).flatten()
                && !slot.stored
            {
                out.push(slot.live(&key, &self.most));
            }
        }
        Some(out)
    }

    fn emit_live(&mut self, keys: Vec<Arc<str>>) {
        for key in keys {
            if let Some(Some(slot)) = self.slots.get_mut(&key)
                && !slot.stored
            {
                slot.stored = true;
                self.batch.inserts.push(Version {
                    key: key.to_string(),
                    from: slot.from,
                    to: None,
                    columns: columns(&*slot.state, &self.most),
                    body: slot.body.clone(),
                });
            }
        }
    }

    /// Lets the rows go that were not used for longest, down to three quarters of the bound.
    /// Writes those that were not; gives back the keys of all that are there.
    fn forget(&mut self) -> Vec<Arc<str>> {
        let keep = self.bound / 4 * 3;
        let mut ages: Vec<u64> =
            self.slots.values().map(|slot| slot.as_ref().map_or(0, |slot| slot.used)).collect();
        let surplus = ages.len().saturating_sub(keep);
        if surplus == 0 {
            return Vec::new();
        }
        let (_, &mut oldest_kept, _) = ages.select_nth_unstable(surplus - 1);
        let mut gone: Vec<Arc<str>> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.as_ref().is_none_or(|slot| slot.used <= oldest_kept))
            .map(|(key, _)| Arc::clone(key))
            .collect();
        gone.truncate(surplus);
        // In order, as nearly as can be: indexes of a table whose rows lie in the order of their
        // keys are made in half the time.
        gone.sort_unstable();
        gone.retain(|key| match self.slots.remove(key).flatten() {
            Some(slot) => {
                if !slot.stored {
                    self.batch.inserts.push(slot.live(key, &self.most));
                }
                true
            }
            None => false,
        });
        gone
    }
}

/// A row's columns as they are written.
fn columns(state: &dyn RowState, most: &[Most]) -> Vec<Value> {
    let mut columns = state.columns();
    for (value, most) in columns.iter_mut().zip(most) {
        if let Value::Text(text) = value {
            *text = most.kept(std::mem::take(text));
        }
    }
    columns
}

/// 64 bits of a key. Two keys with one hash only cost a look into the table.
pub(crate) fn key_hash(key: &str) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(key)
}
