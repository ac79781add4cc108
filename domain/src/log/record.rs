//! One record of the log, as the bytes that are hashed and stored.
//!
//! A frame is a version byte, the length of each field as a big-endian `u32`, then the fields.
//! Every field is length-prefixed, so no two records share a frame. The frame is the truth; the
//! columns a store keeps beside it only help to find it, and are checked against it.

use std::{fmt, sync::Arc};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::merkle::{Hash, leaf_hash};
use crate::kernel::StreamId;

/// Place in the log: from 1, without gaps, in the order of commits. 0 is before the first.
pub type Position = u64;

/// The request a command came with: what makes a retry, after a crash or a restore, one effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestStamp {
    /// The `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header), 1…255 bytes.
    pub key: String,
    /// Keyed digest over method, path and body, in hex.
    pub digest: String,
}

/// Everything of a record but its data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Where it is in the log.
    pub position: Position,
    /// When it was committed: UTC, microseconds, never before the record before it.
    pub recorded_at: DateTime<Utc>,
    /// Kind of its stream.
    pub kind: String,
    /// Id of its stream.
    pub id: String,
    /// Place in its stream, from 1.
    pub revision: u64,
    /// Its own id: UUIDv5 of the command's id and its place in the command.
    pub event_id: Uuid,
    /// The event's tag.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Version of the event's shape, from 1.
    pub schema_version: u16,
    /// The principal's name.
    pub actor: String,
    /// Who owns the resource; none is the estate's.
    pub project: Option<Uuid>,
    /// The command that made it.
    pub command_id: Uuid,
    /// What the command belongs to: the first command of a chain.
    pub correlation_id: Uuid,
    /// The command or event that caused the command, if one did.
    pub causation_id: Option<Uuid>,
    /// The caller's idempotency key and the digest of what it sent.
    pub request: Option<RequestStamp>,
}

/// One record: a frame, and where its fields lie. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    frame: Arc<[u8]>,
}

/// Why bytes are not a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// The frame's version is not known to this program.
    #[error("frame version {0} is not known")]
    Version(u8),
    /// Lengths and bytes do not fit.
    #[error("the frame's lengths do not fit its {0} bytes")]
    Length(usize),
    /// A field does not read.
    #[error("field {0} of the frame does not read")]
    Field(&'static str),
}

const VERSION: u8 = 1;
const FIELDS: usize = 16;
const LENGTHS_END: usize = 1 + 4 * FIELDS;

// Order of the fields in the frame.
const POSITION: usize = 0;
const RECORDED_AT: usize = 1;
const KIND: usize = 2;
const ID: usize = 3;
const REVISION: usize = 4;
const EVENT_ID: usize = 5;
const TYPE: usize = 6;
const SCHEMA_VERSION: usize = 7;
const ACTOR: usize = 8;
const PROJECT: usize = 9;
const COMMAND_ID: usize = 10;
const CORRELATION_ID: usize = 11;
const CAUSATION_ID: usize = 12;
const REQUEST_KEY: usize = 13;
const REQUEST_DIGEST: usize = 14;
const DATA: usize = 15;

impl Record {
    /// Puts a record together. `data` is the event's canonical JSON.
    pub fn new(header: &Header, data: &[u8]) -> Self {
        let position = header.position.to_be_bytes();
        let recorded_at = header.recorded_at.timestamp_micros().to_be_bytes();
        let revision = header.revision.to_be_bytes();
        let schema_version = header.schema_version.to_be_bytes();
        let fields: [&[u8]; FIELDS] = [
            &position,
            &recorded_at,
            header.kind.as_bytes(),
            header.id.as_bytes(),
            &revision,
            header.event_id.as_bytes(),
            header.event_type.as_bytes(),
            &schema_version,
            header.actor.as_bytes(),
            header.project.as_ref().map_or(&[], |id| id.as_bytes().as_slice()),
            header.command_id.as_bytes(),
            header.correlation_id.as_bytes(),
            header.causation_id.as_ref().map_or(&[], |id| id.as_bytes().as_slice()),
            header.request.as_ref().map_or(&[], |request| request.key.as_bytes()),
            header.request.as_ref().map_or(&[], |request| request.digest.as_bytes()),
            data,
        ];
        let size = LENGTHS_END + fields.iter().map(|field| field.len()).sum::<usize>();
        let mut frame = Vec::with_capacity(size);
        frame.push(VERSION);
        for field in fields {
            frame.extend_from_slice(&(field.len() as u32).to_be_bytes());
        }
        for field in fields {
            frame.extend_from_slice(field);
        }
        Self { frame: frame.into() }
    }

    /// Reads a frame and checks that every field is what it must be.
    pub fn from_frame(frame: impl Into<Arc<[u8]>>) -> Result<Self, RecordFault> {
        let record = Self::from_trusted(frame)?;
        record.try_header()?;
        serde_json::from_slice::<serde::de::IgnoredAny>(record.data())
            .map_err(|_| RecordFault::Field("data"))?;
        Ok(record)
    }

    /// Reads a frame whose bytes a store vouches for: only its lengths are checked.
    pub fn from_trusted(frame: impl Into<Arc<[u8]>>) -> Result<Self, RecordFault> {
        let frame = frame.into();
        match frame.first() {
            Some(&VERSION) => {}
            Some(&other) => return Err(RecordFault::Version(other)),
            None => return Err(RecordFault::Length(0)),
        }
        let lengths =
            frame.get(1..LENGTHS_END).ok_or(RecordFault::Length(frame.len()))?.as_chunks::<4>().0;
        let sum: u64 = lengths.iter().map(|length| u64::from(u32::from_be_bytes(*length))).sum();
        if sum + LENGTHS_END as u64 != frame.len() as u64 {
            return Err(RecordFault::Length(frame.len()));
        }
        Ok(Self { frame })
    }

    fn field(&self, wanted: usize) -> &[u8] {
        let lengths = self.frame[1..LENGTHS_END].as_chunks::<4>().0;
        let length = |field: usize| u32::from_be_bytes(lengths[field]) as usize;
        let start = LENGTHS_END + (0..wanted).map(length).sum::<usize>();
        &self.frame[start..start + length(wanted)]
    }

    fn text(&self, field: usize) -> &str {
        std::str::from_utf8(self.field(field)).unwrap_or_default()
    }

    fn number(&self, field: usize) -> u64 {
        self.field(field).try_into().map(u64::from_be_bytes).unwrap_or_default()
    }

    /// The bytes that are hashed.
    pub fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// Its leaf in the Merkle tree.
    pub fn leaf(&self) -> Hash {
        leaf_hash(&self.frame)
    }

    /// See [`Header::position`].
    pub fn position(&self) -> Position {
        self.number(POSITION)
    }

    /// See [`Header::revision`].
    pub fn revision(&self) -> u64 {
        self.number(REVISION)
    }

    /// See [`Header::kind`].
    pub fn kind(&self) -> &str {
        self.text(KIND)
    }

    /// See [`Header::id`].
    pub fn id(&self) -> &str {
        self.text(ID)
    }

    /// The stream it is in.
    pub fn stream(&self) -> StreamId {
        StreamId::new(self.kind(), self.id())
    }

    /// See [`Header::event_type`].
    pub fn event_type(&self) -> &str {
        self.text(TYPE)
    }

    /// See [`Header::actor`].
    pub fn actor(&self) -> &str {
        self.text(ACTOR)
    }

    /// See [`Header::project`].
    pub fn project(&self) -> Option<Uuid> {
        Uuid::from_slice(self.field(PROJECT)).ok()
    }

    /// See [`Header::command_id`].
    pub fn command_id(&self) -> Uuid {
        Uuid::from_slice(self.field(COMMAND_ID)).unwrap_or_default()
    }

    /// See [`Header::correlation_id`].
    pub fn correlation_id(&self) -> Uuid {
        Uuid::from_slice(self.field(CORRELATION_ID)).unwrap_or_default()
    }

    /// See [`Header::recorded_at`].
    pub fn recorded_at(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.number(RECORDED_AT) as i64).unwrap_or_default()
    }

    /// The event's canonical JSON.
    pub fn data(&self) -> &[u8] {
        self.field(DATA)
    }

    /// The request it came with.
    pub fn request(&self) -> Option<RequestStamp> {
        let key = self.text(REQUEST_KEY);
        (!key.is_empty()).then(|| RequestStamp {
            key: key.to_owned(),
            digest: self.text(REQUEST_DIGEST).to_owned(),
        })
    }

    /// Everything but the data.
    ///
    /// # Panics
    /// Never for a record that was made by [`Self::new`] or read by [`Self::from_frame`]; a store
    /// that uses [`Self::from_trusted`] answers for its bytes.
    pub fn header(&self) -> Header {
        self.try_header().expect("the frame was checked when it was made or read")
    }

    /// Everything but the data, or which field does not read.
    pub fn try_header(&self) -> Result<Header, RecordFault> {
        let number = |field, name| {
            <[u8; 8]>::try_from(self.field(field))
                .map(u64::from_be_bytes)
                .map_err(|_| RecordFault::Field(name))
        };
        let text = |field, name| {
            std::str::from_utf8(self.field(field))
                .map(str::to_owned)
                .map_err(|_| RecordFault::Field(name))
        };
        let uuid =
            |field, name| Uuid::from_slice(self.field(field)).map_err(|_| RecordFault::Field(name));
        let uuid_or_none = |field, name| match self.field(field) {
            [] => Ok(None),
            _ => uuid(field, name).map(Some),
        };
        let key = text(REQUEST_KEY, "request_key")?;
        let digest = text(REQUEST_DIGEST, "request_digest")?;
        Ok(Header {
            position: number(POSITION, "position")?,
            recorded_at:
                DateTime::from_timestamp_micros(number(RECORDED_AT, "recorded_at")? as i64)
                    .ok_or(RecordFault::Field("recorded_at"))?,
            kind: text(KIND, "kind")?,
            id: text(ID, "id")?,
            revision: number(REVISION, "revision")?,
            event_id: uuid(EVENT_ID, "event_id")?,
            event_type: text(TYPE, "type")?,
            schema_version: <[u8; 2]>::try_from(self.field(SCHEMA_VERSION))
                .map(u16::from_be_bytes)
                .map_err(|_| RecordFault::Field("schema_version"))?,
            actor: text(ACTOR, "actor")?,
            project: uuid_or_none(PROJECT, "project")?,
            command_id: uuid(COMMAND_ID, "command_id")?,
            correlation_id: uuid(CORRELATION_ID, "correlation_id")?,
            causation_id: uuid_or_none(CAUSATION_ID, "causation_id")?,
            request: (!key.is_empty()).then_some(RequestStamp { key, digest }),
        })
    }

    /// As people and exports read it: the header's members and `data`, in one JSON object.
    pub fn to_json(&self) -> Value {
        let mut value = serde_json::to_value(self.header()).expect("a header serialises to JSON");
        let data = serde_json::from_slice(self.data()).unwrap_or(Value::Null);
        if let Some(members) = value.as_object_mut() {
            members.insert("data".to_owned(), data);
        }
        value
    }

    /// The record whose [`Self::to_json`] this is: the same frame, byte for byte.
    pub fn from_json(value: &Value) -> Result<Self, RecordFault> {
        let header = Header::deserialize(value).map_err(|_| RecordFault::Field("header"))?;
        let data = value.get("data").ok_or(RecordFault::Field("data"))?;
        Ok(Self::new(&header, &crate::kernel::canonical_value(data)))
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.position(), self.stream(), self.event_type())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            position: 7,
            recorded_at: DateTime::from_timestamp_micros(1_700_000_000_123_456).unwrap(),
            kind: "project".into(),
            id: "x".into(),
            revision: 2,
            event_id: Uuid::from_u128(1),
            event_type: "renamed".into(),
            schema_version: 1,
            actor: "token:ci".into(),
            project: None,
            command_id: Uuid::from_u128(2),
            correlation_id: Uuid::from_u128(3),
            causation_id: Some(Uuid::from_u128(4)),
            request: Some(RequestStamp { key: "k".into(), digest: "d".into() }),
        }
    }

    #[test]
    fn a_record_reads_back_from_its_frame_and_from_its_json() {
        let record = Record::new(&header(), br#"{"a":1,"b":"2"}"#);
        assert_eq!(record.header(), header());
        assert_eq!(Record::from_frame(record.frame()).unwrap(), record);
        assert_eq!(Record::from_json(&record.to_json()).unwrap(), record);
    }

    #[test]
    fn moving_a_byte_from_one_field_to_the_next_changes_the_leaf() {
        let (mut left, mut right) = (header(), header());
        (left.kind, left.id) = ("ab".into(), "c".into());
        (right.kind, right.id) = ("a".into(), "bc".into());
        assert_ne!(Record::new(&left, b"{}").leaf(), Record::new(&right, b"{}").leaf());
    }

    #[test]
    fn a_cut_frame_is_refused_at_every_length() {
        let record = Record::new(&header(), b"{}");
        for length in 0..record.frame().len() {
            assert!(Record::from_frame(&record.frame()[..length]).is_err(), "{length}");
        }
    }
}
