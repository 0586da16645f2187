-- Addresses that are told of lifecycle events, and how far each of them is in the outbox.
CREATE TABLE webhooks (
    tenant           TEXT COLLATE "C" NOT NULL,
    id               TEXT COLLATE "C" NOT NULL,
    url              TEXT             NOT NULL,
    description      TEXT             NOT NULL,
    -- Of which kinds of events, with spaces between them; empty for all.
    kinds            TEXT             NOT NULL,
    -- What messages are signed with, encrypted.
    secrets          BYTEA            NOT NULL,
    created_at_ms    BIGINT           NOT NULL,
    created_by       TEXT             NOT NULL,
    -- Grows with each change that somebody makes.
    revision         BIGINT           NOT NULL,
    -- Every event up to this position is delivered, or has a row of its own in webhook_deliveries.
    position         BIGINT           NOT NULL,
    failing_since_ms BIGINT,
    failures         BIGINT           NOT NULL,
    next_try_at_ms   BIGINT,
    delivered        BIGINT           NOT NULL,
    tries            BIGINT           NOT NULL,
    disabled_at_ms   BIGINT,
    disabled_because TEXT             NOT NULL,
    -- Which server delivers, and until when.
    leased_by        TEXT,
    leased_until_ms  BIGINT,
    PRIMARY KEY (tenant, id)
);

-- Events that could not be delivered while others were, and those of the same sessions that follow on them.
CREATE TABLE webhook_deliveries (
    tenant         TEXT COLLATE "C" NOT NULL,
    webhook_id     TEXT COLLATE "C" NOT NULL,
    position       BIGINT           NOT NULL,
    session_id     TEXT COLLATE "C" NOT NULL,
    event_id       TEXT             NOT NULL,
    kind           TEXT             NOT NULL,
    version        BIGINT           NOT NULL,
    at_ms          BIGINT           NOT NULL,
    body           TEXT             NOT NULL,
    tries          BIGINT           NOT NULL,
    -- NULL where it was given up.
    next_try_at_ms BIGINT,
    last_failure   TEXT             NOT NULL,
    PRIMARY KEY (tenant, webhook_id, position)
);

-- The latest tries; the next one takes the place of the oldest.
CREATE TABLE webhook_tries (
    tenant      TEXT COLLATE "C" NOT NULL,
    webhook_id  TEXT COLLATE "C" NOT NULL,
    place       BIGINT           NOT NULL,
    number      BIGINT           NOT NULL,
    event_id    TEXT             NOT NULL,
    kind        TEXT             NOT NULL,
    session_id  TEXT             NOT NULL,
    tried_at_ms BIGINT           NOT NULL,
    took_ms     BIGINT           NOT NULL,
    status      BIGINT,
    failure     TEXT,
    PRIMARY KEY (tenant, webhook_id, place)
);
