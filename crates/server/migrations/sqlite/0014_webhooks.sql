-- Addresses that are told of lifecycle events, and how far each of them is in the outbox.
CREATE TABLE webhooks (
    tenant           TEXT NOT NULL,
    id               TEXT NOT NULL,
    url              TEXT    NOT NULL,
    description      TEXT    NOT NULL,
    -- Of which kinds of events, with spaces between them; empty for all.
    kinds            TEXT    NOT NULL,
    -- What messages are signed with, encrypted.
    secrets          BLOB    NOT NULL,
    created_at_ms    INTEGER NOT NULL,
    created_by       TEXT    NOT NULL,
    -- Grows with each change that somebody makes.
    revision         INTEGER NOT NULL,
    -- Every event up to this position is delivered, or has a row of its own in webhook_deliveries.
    position         INTEGER NOT NULL,
    failing_since_ms INTEGER,
    failures         INTEGER NOT NULL,
    next_try_at_ms   INTEGER,
    delivered        INTEGER NOT NULL,
    tries            INTEGER NOT NULL,
    disabled_at_ms   INTEGER,
    disabled_because TEXT    NOT NULL,
    -- Which server delivers, and until when.
    leased_by        TEXT,
    leased_until_ms  INTEGER,
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;

-- Events that could not be delivered while others were, and those of the same sessions that follow on them.
CREATE TABLE webhook_deliveries (
    tenant         TEXT NOT NULL,
    webhook_id     TEXT NOT NULL,
    position       INTEGER NOT NULL,
    session_id     TEXT NOT NULL,
    event_id       TEXT    NOT NULL,
    kind           TEXT    NOT NULL,
    version        INTEGER NOT NULL,
    at_ms          INTEGER NOT NULL,
    body           TEXT    NOT NULL,
    tries          INTEGER NOT NULL,
    -- NULL where it was given up.
    next_try_at_ms INTEGER,
    last_failure   TEXT    NOT NULL,
    PRIMARY KEY (tenant, webhook_id, position)
) STRICT, WITHOUT ROWID;

-- The latest tries; the next one takes the place of the oldest.
CREATE TABLE webhook_tries (
    tenant      TEXT NOT NULL,
    webhook_id  TEXT NOT NULL,
    place       INTEGER NOT NULL,
    number      INTEGER NOT NULL,
    event_id    TEXT    NOT NULL,
    kind        TEXT    NOT NULL,
    session_id  TEXT    NOT NULL,
    tried_at_ms INTEGER NOT NULL,
    took_ms     INTEGER NOT NULL,
    status      INTEGER,
    failure     TEXT,
    PRIMARY KEY (tenant, webhook_id, place)
) STRICT, WITHOUT ROWID;
