-- First answers to requests that carried an idempotency key.
CREATE TABLE idempotency (
    tenant        TEXT COLLATE "C" NOT NULL,
    scope         TEXT COLLATE "C" NOT NULL,
    key           TEXT COLLATE "C" NOT NULL,
    body_sha256   BYTEA            NOT NULL,
    -- Which attempt holds the key; a late one must not overwrite its successor's answer.
    attempt       BYTEA            NOT NULL,
    started_at_ms BIGINT           NOT NULL,
    -- NULL while the first request is still running.
    status        INTEGER,
    headers       TEXT,
    -- Opaque to the store.
    body          BYTEA,
    -- Of which session the answer tells: it goes when the session is erased.
    session_id    TEXT COLLATE "C",
    PRIMARY KEY (tenant, scope, key)
);

CREATE INDEX idempotency_age ON idempotency (started_at_ms);
CREATE INDEX idempotency_session ON idempotency (tenant, session_id) WHERE session_id IS NOT NULL;
