//! The tables of log, index and leases. The views' own are beside their code.

use commands::ports::LogFault;
use rusqlite::Connection;

use crate::fault;

/// Goes up with every change below; a file of another version is refused.
const VERSION: i64 = 3;

/// The log's file.
const LOG: &str = "
CREATE TABLE events (          -- the log itself
    position INTEGER PRIMARY KEY,
    mark INTEGER NOT NULL,         -- the leaf's first 8 bytes
    record BLOB NOT NULL
) STRICT;
CREATE TRIGGER events_stay BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'an event never changes'); END;
CREATE TRIGGER events_remain BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'an event is never deleted'); END;

CREATE TABLE tree (            -- nodes at every eighth level
    level INTEGER NOT NULL,
    idx INTEGER NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (level, idx)
) STRICT, WITHOUT ROWID;

CREATE TABLE head (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    position INTEGER NOT NULL,
    recorded_at INTEGER NOT NULL,  -- microseconds since 1970
    frontier BLOB NOT NULL
) STRICT;
INSERT INTO head VALUES (1, 0, 0, x'0000000000000000');

CREATE TABLE leases (
    key TEXT PRIMARY KEY,
    owner TEXT,                    -- none while nobody holds it
    epoch INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    not_before INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE lease_epoch (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    last INTEGER NOT NULL
) STRICT;
INSERT INTO lease_epoch VALUES (1, 0);
";

/// The index's file: what finds events, made from their records.
const INDEX: &str = "
CREATE TABLE names (           -- kinds, types, actors and projects, once each
    no INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE streams (
    stream_no INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    UNIQUE (kind, id)
) STRICT;

CREATE TABLE event_index (
    position INTEGER PRIMARY KEY,
    stream_no INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    kind_no INTEGER NOT NULL,
    type_no INTEGER NOT NULL,
    actor_no INTEGER NOT NULL,
    project_no INTEGER,
    command INTEGER NOT NULL,      -- the id's first 8 bytes
    correlation INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX event_index_stream ON event_index (stream_no, revision);
CREATE INDEX event_index_kind ON event_index (kind_no);
CREATE INDEX event_index_type ON event_index (type_no);
CREATE INDEX event_index_actor ON event_index (actor_no);
CREATE INDEX event_index_project ON event_index (project_no) WHERE project_no IS NOT NULL;
CREATE INDEX event_index_command ON event_index (command);
CREATE INDEX event_index_correlation ON event_index (correlation) WHERE correlation <> command;

CREATE TABLE requests (
    actor TEXT NOT NULL,
    key TEXT NOT NULL,
    digest TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (actor, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE reach (           -- how far the index goes
    one INTEGER PRIMARY KEY CHECK (one = 1),
    position INTEGER NOT NULL,
    mark INTEGER NOT NULL          -- of the record there: an index of another log is told by it
) STRICT;
INSERT INTO reach VALUES (1, 0, 0);
";

/// Makes the log's tables in a new file, all or none.
pub(crate) fn create_log(connection: &mut Connection) -> Result<(), LogFault> {
    create(connection, LOG)
}

/// The same for the index's.
pub(crate) fn create_index(connection: &mut Connection) -> Result<(), LogFault> {
    create(connection, INDEX)
}

fn create(connection: &mut Connection, tables: &str) -> Result<(), LogFault> {
    let version = |connection: &Connection| {
        connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))
    };
    match version(connection).map_err(fault)? {
        VERSION => return Ok(()),
        0 => {}
        other => {
            return Err(LogFault::Unexpected(format!(
                "the file is of version {other}, this program knows version {VERSION}"
            )));
        }
    }
    let transaction = connection.transaction().map_err(fault)?;
    transaction.execute_batch(tables).map_err(fault)?;
    transaction.pragma_update(None, "user_version", VERSION).map_err(fault)?;
    transaction.commit().map_err(fault)
}
