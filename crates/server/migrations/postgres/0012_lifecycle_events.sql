-- The outbox: what other systems are told of sessions, written with the change it tells of.

-- Whoever takes a position has to have a transaction id before, as with the audit log.
CREATE SEQUENCE lifecycle_positions;

CREATE TABLE lifecycle_events (
    tenant     TEXT COLLATE "C" NOT NULL,
    position   BIGINT           NOT NULL CHECK (position > 0),
    -- Names it for ever: whoever is told twice knows it by this.
    id         TEXT             NOT NULL,
    session_id TEXT COLLATE "C" NOT NULL,
    version    BIGINT           NOT NULL,
    kind       TEXT COLLATE "C" NOT NULL,
    at_ms      BIGINT           NOT NULL,
    -- What is told, as JSON. Holds no personal data.
    body       TEXT             NOT NULL,
    PRIMARY KEY (tenant, position)
);

-- Finds the place of a time.
CREATE INDEX lifecycle_events_by_time ON lifecycle_events (tenant, at_ms, position);

-- Up to where a tenant's events are forgotten.
CREATE TABLE lifecycle_horizons (
    tenant           TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    through_position BIGINT           NOT NULL
);
