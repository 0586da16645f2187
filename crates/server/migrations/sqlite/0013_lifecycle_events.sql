-- The outbox: what other systems are told of sessions, written with the change it tells of.
CREATE TABLE lifecycle_events (
    position   INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant     TEXT    NOT NULL,
    -- Names it for ever: whoever is told twice knows it by this.
    id         TEXT    NOT NULL,
    session_id TEXT    NOT NULL,
    version    INTEGER NOT NULL,
    kind       TEXT    NOT NULL,
    at_ms      INTEGER NOT NULL,
    -- What is told, as JSON. Holds no personal data.
    body       TEXT    NOT NULL
) STRICT;

CREATE INDEX lifecycle_events_of_tenant ON lifecycle_events (tenant, position);

-- Finds the place of a time.
CREATE INDEX lifecycle_events_by_time ON lifecycle_events (tenant, at_ms, position);

-- Up to where a tenant's events are forgotten.
CREATE TABLE lifecycle_horizons (
    tenant           TEXT    NOT NULL PRIMARY KEY,
    through_position INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
