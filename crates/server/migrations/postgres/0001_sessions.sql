-- Keys are compared byte by byte (COLLATE "C"): quicker, and every server locks rows in the same order.

-- The journal is the one arbiter: its primary key decides every race.
CREATE TABLE journal (
    tenant     TEXT COLLATE "C" NOT NULL,
    session_id TEXT COLLATE "C" NOT NULL,
    version    BIGINT           NOT NULL,
    -- Opaque to the store. Empty once the session's history was purged.
    blob       BYTEA            NOT NULL,
    PRIMARY KEY (tenant, session_id, version)
);

-- The current state of each session. The columns beside `state` hold no personal data.
CREATE TABLE sessions (
    tenant           TEXT COLLATE "C" NOT NULL,
    session_id       TEXT COLLATE "C" NOT NULL,
    version          BIGINT           NOT NULL,
    state            BYTEA            NOT NULL,
    status           TEXT COLLATE "C" NOT NULL,
    step             TEXT COLLATE "C" NOT NULL,
    funnel_id        TEXT             NOT NULL,
    funnel_version   TEXT             NOT NULL,
    created_at_ms    BIGINT           NOT NULL,
    updated_at_ms    BIGINT           NOT NULL,
    expires_at_ms    BIGINT           NOT NULL,
    completed_at_ms  BIGINT,
    deadline_at_ms   BIGINT,
    erased           BOOLEAN          NOT NULL,
    currency         TEXT             NOT NULL,
    amount_minor     BIGINT           NOT NULL,
    -- A keyed hash of the email address: finds a buyer's sessions, and tells nothing without the key.
    email_digest     BYTEA,
    -- Until when one server has taken on what is due about the session.
    claimed_until_ms BIGINT,
    PRIMARY KEY (tenant, session_id)
);

CREATE INDEX sessions_due ON sessions (deadline_at_ms) WHERE deadline_at_ms IS NOT NULL;
CREATE INDEX sessions_recent ON sessions (tenant, updated_at_ms DESC, session_id);
CREATE INDEX sessions_by_status ON sessions (tenant, status, updated_at_ms DESC, session_id);
CREATE INDEX sessions_by_step ON sessions (tenant, step, updated_at_ms DESC, session_id);
CREATE INDEX sessions_by_email ON sessions (tenant, email_digest) WHERE email_digest IS NOT NULL;
-- What may be deleted, the longest untouched first.
CREATE INDEX sessions_ended ON sessions (updated_at_ms) WHERE status IN ('completed', 'failed', 'expired');
