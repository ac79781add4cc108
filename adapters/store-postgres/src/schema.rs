//! The tables of log and leases, in a schema of their own. The views' are beside their code.

use commands::ports::LogFault;
use tokio_postgres::Client;

use crate::connection::fault;

/// Goes up with every change below; a database of a later version is refused.
const VERSION: i32 = 1;

const TABLES: &str = "
CREATE TABLE store (version int NOT NULL);

-- The only row that orders appends: whoever appends holds its lock.
CREATE TABLE head (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    position bigint NOT NULL,
    recorded_at bigint NOT NULL,           -- microseconds since 1970
    frontier bytea NOT NULL,
    streams bigint NOT NULL                -- the last stream_no
) WITH (fillfactor = 10);
INSERT INTO head VALUES (true, 0, 0, '\\x0000000000000000', 0);

CREATE TABLE streams (
    stream_no bigint NOT NULL,
    revision bigint NOT NULL,
    kind text NOT NULL,
    id text NOT NULL,
    PRIMARY KEY (id, kind)                 -- in this order: an audit may ask for an id alone
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX streams_number ON streams (stream_no);

-- `record` is the truth; the other columns find it.
CREATE TABLE events (
    position bigint PRIMARY KEY,
    stream_no bigint NOT NULL,
    revision bigint NOT NULL,
    recorded_at bigint NOT NULL,
    mark bigint NOT NULL,                  -- the leaf's first 8 bytes
    command_id uuid NOT NULL,
    correlation_id uuid NOT NULL,
    project uuid,
    kind text NOT NULL,
    type text NOT NULL,
    actor text NOT NULL,
    record bytea NOT NULL
);
ALTER TABLE events ALTER COLUMN record SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX events_stream ON events (stream_no, revision);
CREATE INDEX events_kind ON events (kind, position);
CREATE INDEX events_type ON events (type, position);
CREATE INDEX events_actor ON events (actor, position);
CREATE INDEX events_project ON events (project, position) WHERE project IS NOT NULL;
CREATE INDEX events_command ON events (command_id);
CREATE INDEX events_correlation ON events (correlation_id)
    WHERE correlation_id <> command_id;

CREATE FUNCTION an_event_never_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'an event never changes and is never deleted';
END $$;
CREATE TRIGGER events_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION an_event_never_changes();

-- Times never go back along the log, so the place is found by halving.
CREATE FUNCTION position_at(latest bigint) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    low bigint := 0;
    high bigint := (SELECT coalesce(max(position), 0) FROM events);
    middle bigint;
    time bigint;
BEGIN
    WHILE low < high LOOP
        middle := low + (high - low + 1) / 2;
        SELECT recorded_at INTO time FROM events WHERE position = middle;
        IF time <= latest THEN low := middle; ELSE high := middle - 1; END IF;
    END LOOP;
    RETURN low;
END $$;

CREATE TABLE requests (
    first bigint NOT NULL,
    last bigint NOT NULL,
    actor text NOT NULL,
    key text NOT NULL,
    digest text NOT NULL,
    PRIMARY KEY (actor, key)
);

-- Nodes at every eighth level.
CREATE TABLE tree (
    level smallint NOT NULL,
    idx bigint NOT NULL,
    hash bytea NOT NULL,
    PRIMARY KEY (level, idx)
);

CREATE SEQUENCE lease_epoch;
CREATE TABLE leases (
    key text PRIMARY KEY,
    owner text,                            -- none while nobody holds it
    epoch bigint NOT NULL,
    expires_at timestamptz NOT NULL,
    failures int NOT NULL DEFAULT 0,
    not_before timestamptz NOT NULL DEFAULT '-infinity'
);

INSERT INTO store VALUES (1);
";

/// Makes schema and tables when they are not there. Several servers may do so at once.
pub(crate) async fn create(client: &mut Client, schema: &str) -> Result<(), LogFault> {
    let transaction = client.transaction().await.map_err(fault)?;
    // `schema` is a plain identifier: see `Options::schema`.
    transaction
        .batch_execute(&format!(
            "SET LOCAL lock_timeout = '60s';
             SELECT pg_advisory_xact_lock(hashtextextended('skyledger schema {schema}', 0))"
        ))
        .await
        .map_err(fault)?;
    let there = transaction
        .query_one("SELECT to_regclass($1) IS NOT NULL", &[&format!("{schema}.store")])
        .await
        .map_err(fault)?;
    if !there.get::<_, bool>(0) {
        let schema = format!("CREATE SCHEMA IF NOT EXISTS {schema}");
        transaction.batch_execute(&schema).await.map_err(fault)?;
        transaction.batch_execute(TABLES).await.map_err(fault)?;
    }
    let row = transaction.query_one("SELECT version FROM store", &[]).await.map_err(fault)?;
    let version: i32 = row.get(0);
    if version != VERSION {
        return Err(LogFault::Unexpected(format!(
            "the schema is of version {version}, this program knows version {VERSION}"
        )));
    }
    transaction.commit().await.map_err(fault)
}
