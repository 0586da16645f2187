-- The journal is the one arbiter: its primary key decides every race.
CREATE TABLE journal (
    tenant     TEXT    NOT NULL,
    session_id TEXT    NOT NULL,
    version    INTEGER NOT NULL,
    -- Opaque to the store. Empty once the session's history was purged.
    blob       BLOB    NOT NULL,
    PRIMARY KEY (tenant, session_id, version)
) STRICT;

-- The current state of each session. The columns beside `state` hold no personal data.
CREATE TABLE sessions (
    tenant         TEXT    NOT NULL,
    session_id     TEXT    NOT NULL,
    version        INTEGER NOT NULL,
    state          BLOB    NOT NULL,
    status         TEXT    NOT NULL,
    step           TEXT    NOT NULL,
    funnel_id      TEXT    NOT NULL,
    funnel_version TEXT    NOT NULL,
    created_at_ms  INTEGER NOT NULL,
    updated_at_ms  INTEGER NOT NULL,
    expires_at_ms  INTEGER NOT NULL,
    deadline_at_ms INTEGER,
    erased         INTEGER NOT NULL CHECK (erased IN (0, 1)),
    currency       TEXT    NOT NULL,
    amount_minor   INTEGER NOT NULL,
    PRIMARY KEY (tenant, session_id)
) STRICT;

CREATE INDEX sessions_due ON sessions (deadline_at_ms) WHERE deadline_at_ms IS NOT NULL;
CREATE INDEX sessions_recent ON sessions (tenant, updated_at_ms DESC, session_id);
