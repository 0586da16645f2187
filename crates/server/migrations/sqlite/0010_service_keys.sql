-- Keys of back ends and operators. A key itself is nowhere, only its hash. Rows are never deleted: tokens name the key that
-- had them made, and whether that is revoked has to be known for as long as they are good.
CREATE TABLE service_keys (
    -- What the key is called in logs, lists and tokens.
    id              TEXT    PRIMARY KEY NOT NULL,
    tenant          TEXT    NOT NULL,
    -- What people call it. No personal data.
    name            TEXT    NOT NULL,
    sha256          BLOB    NOT NULL UNIQUE,
    -- Names, with a space between them.
    scopes          TEXT    NOT NULL,
    created_at_ms   INTEGER NOT NULL,
    created_by      TEXT    NOT NULL,
    expires_at_ms   INTEGER,
    revoked_at_ms   INTEGER,
    -- At most once a minute.
    last_used_at_ms INTEGER,
    -- The number of the change by which it became what it is; its use is none.
    changed         INTEGER NOT NULL
) STRICT;

CREATE INDEX service_keys_changed ON service_keys (changed);
CREATE INDEX service_keys_of_tenant ON service_keys (tenant, created_at_ms, id);

-- The number of the latest change: who has seen it has missed nothing before it.
CREATE TABLE service_key_changes (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    version INTEGER NOT NULL
) STRICT;
INSERT INTO service_key_changes (id, version) VALUES (1, 0);
