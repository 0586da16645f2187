-- First answers to requests that carried an idempotency key.
CREATE TABLE idempotency (
    tenant        TEXT    NOT NULL,
    scope         TEXT    NOT NULL,
    key           TEXT    NOT NULL,
    body_sha256   BLOB    NOT NULL,
    -- Which attempt holds the key; a late one must not overwrite its successor's answer.
    attempt       BLOB    NOT NULL,
    started_at_ms INTEGER NOT NULL,
    -- NULL while the first request is still running.
    status        INTEGER,
    headers       TEXT,
    -- Opaque to the store.
    body          BLOB,
    PRIMARY KEY (tenant, scope, key)
) STRICT;

CREATE INDEX idempotency_age ON idempotency (started_at_ms);
