//! Group commit without a store: what a group of appends makes of a log that stands somewhere.
//!
//! Pure. A store collects what its callers want, takes its lock, looks up [`Standing`], calls
//! [`plan`], writes the [`Plan`] in one transaction, and then gives each caller its own answer. A
//! wrong revision or a repeated request is answered alone; its neighbours do not notice.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use chrono::{DateTime, SubsecRound, Utc};
use commands::ports::{Answered, Append, AppendFault, Appended, Expected, Head, LogFault};
use domain::{
    kernel::StreamId,
    log::{Frontier, Hash, Header, Node, Record},
};

/// Most appends in one group: beyond it a group's own work, not the disk, is what callers wait for.
pub const GROUP_APPENDS_MAX: usize = 512;
/// Most bytes of data in one group, unless one append alone has more.
pub const GROUP_BYTES_MAX: usize = 4 << 20;

/// How long a group waits for as many as the group before it had: the callers that were just
/// answered come back within it, and share one commit instead of two. A lone caller never waits.
pub const LINGER: Duration = Duration::from_micros(500);

/// Where a store takes its times from.
pub type Now = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// The machine's time.
pub fn system_time() -> Now {
    Arc::new(|| DateTime::<Utc>::from(SystemTime::now()))
}

/// Bytes of data an append brings; what [`GROUP_BYTES_MAX`] counts.
pub fn data_bytes(append: &Append) -> usize {
    append.streams.iter().flat_map(|part| &part.events).map(|event| event.data.len()).sum()
}

/// Actor and key: what makes a request one.
pub type RequestKey = (String, String);

/// How the log stands, as far as a group asks: looked up under the lock that orders appends.
#[derive(Debug, Default)]
pub struct Standing {
    /// Revision of each stream the group names; a stream that is not here has no record.
    pub streams: HashMap<StreamId, u64>,
    /// Each request of the group that was answered before.
    pub requests: HashMap<RequestKey, Answered>,
}

/// What is to be written, and what each caller is to be told once it is durable.
#[derive(Debug)]
pub struct Plan {
    /// One for each append, in order.
    pub answers: Vec<Result<Appended, AppendFault>>,
    /// In order of position, following on the head.
    pub records: Vec<Record>,
    /// The leaf of each of them.
    pub leaves: Vec<Hash>,
    /// Tiles these records complete.
    pub nodes: Vec<Node>,
    /// Streams these records are in, with their new revision.
    pub streams: HashMap<StreamId, u64>,
    /// Requests these records came with.
    pub requests: HashMap<RequestKey, Answered>,
    /// The head after them.
    pub head: Head,
}

impl Plan {
    /// Nothing yet, on a log with this head.
    pub fn after(head: Head) -> Self {
        Self {
            answers: Vec::new(),
            records: Vec::new(),
            leaves: Vec::new(),
            nodes: Vec::new(),
            streams: HashMap::new(),
            requests: HashMap::new(),
            head,
        }
    }

    fn push(&mut self, record: Record) {
        let (nodes, leaf) = (&mut self.nodes, record.leaf());
        self.head.frontier.push(leaf, |node| nodes.push(node));
        self.leaves.push(leaf);
        self.head.position += 1;
        self.records.push(record);
    }

    fn revision(&self, standing: &Standing, stream: &StreamId) -> u64 {
        self.streams.get(stream).or_else(|| standing.streams.get(stream)).copied().unwrap_or(0)
    }

    /// One more append, which passed [`Append::check`]. `standing` has what was looked up of it; what
    /// the plan has already counts first.
    pub fn add(&mut self, standing: &Standing, append: &Append, now: DateTime<Utc>) {
        let answer = self.append(standing, append, now);
        self.answers.push(answer);
    }

    fn append(
        &mut self,
        standing: &Standing,
        append: &Append,
        now: DateTime<Utc>,
    ) -> Result<Appended, AppendFault> {
        let request = append.request.as_ref().map(|one| (append.actor.clone(), one.key.clone()));
        if let Some(key) = &request
            && let Some(answered) = self.requests.get(key).or_else(|| standing.requests.get(key))
        {
            return Err(AppendFault::Repeated(answered.clone()));
        }
        let mut revisions = Vec::with_capacity(append.streams.len());
        for part in &append.streams {
            let actual = self.revision(standing, &part.stream);
            let right = match part.expected {
                Expected::Any => true,
                Expected::NoStream => actual == 0,
                Expected::Exact(revision) => actual == revision,
            };
            if !right {
                return Err(AppendFault::Conflict {
                    stream: part.stream.clone(),
                    expected: part.expected,
                    actual,
                });
            }
            revisions.push(actual);
        }
        if append.streams.iter().all(|part| part.events.is_empty()) {
            let Head { position, recorded_at, .. } = self.head;
            return Ok(Appended { first: position, last: position, revisions, recorded_at });
        }
        let first = self.head.position + 1;
        // Microseconds are what a record keeps; the log's time never goes back.
        let recorded_at = now.trunc_subsecs(6).max(self.head.recorded_at);
        self.head.recorded_at = recorded_at;
        let mut place = 0;
        for (part, revision) in append.streams.iter().zip(&mut revisions) {
            let Some(last) = part.events.len().checked_sub(1) else { continue };
            let mut header = Header {
                position: 0,
                recorded_at,
                kind: part.stream.kind.clone(),
                id: part.stream.id.clone(),
                revision: *revision,
                event_id: append.command_id,
                event_type: String::new(),
                schema_version: 1,
                actor: append.actor.clone(),
                project: part.project,
                command_id: append.command_id,
                correlation_id: append.correlation_id,
                causation_id: append.causation_id,
                request: append.request.clone(),
            };
            for event in &part.events {
                header.position = self.head.position + 1;
                header.revision += 1;
                header.event_id = append.event_id(place);
                header.event_type.clone_from(&event.event_type);
                header.schema_version = event.schema_version;
                self.push(Record::new(&header, &event.data));
                place += 1;
            }
            *revision += 1 + last as u64;
            self.streams.insert(part.stream.clone(), *revision);
        }
        let last = self.head.position;
        if let (Some(key), Some(request)) = (request, &append.request) {
            self.requests.insert(key, Answered { digest: request.digest.clone(), first, last });
        }
        Ok(Appended { first, last, revisions, recorded_at })
    }

    fn restore(&mut self, standing: &Standing, record: Record) -> Result<(), LogFault> {
        let damaged = |reason: String| LogFault::Corrupt { position: record.position(), reason };
        Record::from_frame(record.frame()).map_err(|fault| damaged(fault.to_string()))?;
        if record.position() != self.head.position + 1 {
            return Err(damaged(format!("the log ends at position {}", self.head.position)));
        }
        let stream = record.stream();
        let revision = self.revision(standing, &stream);
        if record.revision() != revision + 1 {
            return Err(damaged(format!("{stream} ends at revision {revision}")));
        }
        if record.recorded_at() < self.head.recorded_at {
            return Err(damaged("it is older than the record before it".to_owned()));
        }
        if let Some(request) = record.request() {
            let key = (record.actor().to_owned(), request.key);
            let before = self.requests.get(&key).or_else(|| standing.requests.get(&key));
            let first = match before {
                None => record.position(),
                // A further record of the same append.
                Some(one) if one.last == self.head.position && one.digest == request.digest => {
                    one.first
                }
                Some(one) => {
                    let first = one.first;
                    return Err(damaged(format!("its idempotency key was used at {first}")));
                }
            };
            let answered = Answered { digest: request.digest, first, last: record.position() };
            self.requests.insert(key, answered);
        }
        self.head.recorded_at = record.recorded_at();
        self.streams.insert(stream, revision + 1);
        self.push(record);
        Ok(())
    }
}

/// What a group of appends makes of a log that stands so. The appends passed [`Append::check`].
pub fn plan(head: Head, standing: &Standing, appends: &[Append], now: DateTime<Utc>) -> Plan {
    let mut plan = Plan::after(head);
    plan.answers.reserve(appends.len());
    for append in appends {
        plan.add(standing, append, now);
    }
    plan
}

/// What taking over these records makes of a log that stands so; no answers.
///
/// # Errors
/// [`LogFault::Corrupt`] naming the first record that does not follow.
pub fn plan_restore(
    head: Head,
    standing: &Standing,
    records: Vec<Record>,
) -> Result<Plan, LogFault> {
    let mut plan = Plan::after(head);
    for record in records {
        plan.restore(standing, record)?;
    }
    Ok(plan)
}

/// The streams and requests a group asks about, each once.
pub fn questions(appends: &[Append]) -> (Vec<StreamId>, Vec<RequestKey>) {
    let streams = appends.iter().flat_map(|append| &append.streams).map(|part| &part.stream);
    let requests = appends.iter().filter_map(|append| {
        append.request.as_ref().map(|request| (append.actor.clone(), request.key.clone()))
    });
    (once(streams.cloned()), once(requests))
}

/// The same for records that are to be taken over.
pub fn restore_questions(records: &[Record]) -> (Vec<StreamId>, Vec<RequestKey>) {
    let requests = records.iter().filter_map(|record| {
        record.request().map(|request| (record.actor().to_owned(), request.key))
    });
    (once(records.iter().map(Record::stream)), once(requests))
}

fn once<T: Eq + std::hash::Hash + Clone>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = HashSet::new();
    items.filter(|item| seen.insert(item.clone())).collect()
}

/// The head's tree made again from what a store keeps: all its nodes of the lowest kept level,
/// and the leaves after the last of them. None when these are more than a tile.
pub fn frontier_of(tiles: &[Hash], leaves: &[Hash]) -> Option<Frontier> {
    let tile = 1_usize << Frontier::TILE_LEVELS;
    if leaves.len() >= tile {
        return None;
    }
    let (mut upper, mut lower) = (Frontier::default(), Frontier::default());
    for hash in tiles {
        upper.push(*hash, |_| ());
    }
    for hash in leaves {
        lower.push(*hash, |_| ());
    }
    let size = (tiles.len() * tile + leaves.len()) as u64;
    let mut bytes = size.to_be_bytes().to_vec();
    bytes.extend_from_slice(&upper.to_bytes()[8..]);
    bytes.extend_from_slice(&lower.to_bytes()[8..]);
    Frontier::from_bytes(&bytes)
}

#[cfg(test)]
mod tests {
    use domain::log::leaf_hash;

    use super::*;

    #[test]
    fn the_tree_of_tiles_and_leaves_is_the_tree_of_all_leaves() {
        for size in [0, 1, 255, 256, 257, 511, 512, 1_000, 1_024, 1_279] {
            let leaves: Vec<Hash> = (0..size).map(|n: u32| leaf_hash(&n.to_be_bytes())).collect();
            let (mut whole, mut tiles) = (Frontier::default(), Vec::new());
            for leaf in &leaves {
                whole.push(*leaf, |node| {
                    if node.level == Frontier::TILE_LEVELS {
                        tiles.push(node.hash);
                    }
                });
            }
            assert_eq!(frontier_of(&tiles, &leaves[tiles.len() * 256..]), Some(whole), "{size}");
        }
    }
}
