-- The audit log: who did what, written with the change it tells of, and never changed afterwards.
CREATE TABLE audit_log (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant   TEXT NOT NULL,
    -- What is told, as JSON. Holds no personal data.
    body     TEXT NOT NULL,
    -- HMAC of tenant and body by a key of the key ring, and that key's public name.
    mac      BLOB NOT NULL,
    key_id   TEXT NOT NULL
) STRICT;

CREATE INDEX audit_log_of_tenant ON audit_log (tenant, position);

-- A tenant's records in blocks, each of which holds the hash of the one before.
CREATE TABLE audit_blocks (
    tenant           TEXT    NOT NULL,
    sequence         INTEGER NOT NULL,
    -- It is about the records after those of the block before, up to this position.
    through_position INTEGER NOT NULL,
    records          INTEGER NOT NULL,
    -- Those among them that nobody with the key ring had written.
    foreign_records  INTEGER NOT NULL,
    sealed_at_ms     INTEGER NOT NULL,
    previous_hash    BLOB    NOT NULL,
    records_digest   BLOB    NOT NULL,
    hash             BLOB    NOT NULL,
    PRIMARY KEY (tenant, sequence)
) STRICT, WITHOUT ROWID;

-- A tenant's latest block, so that a chain that was cut at its end is found.
CREATE TABLE audit_heads (
    tenant           TEXT    NOT NULL PRIMARY KEY,
    sequence         INTEGER NOT NULL,
    through_position INTEGER NOT NULL,
    hash             BLOB    NOT NULL,
    mac              BLOB    NOT NULL,
    key_id           TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER audit_log_is_not_updated BEFORE UPDATE ON audit_log
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_log_is_not_deleted BEFORE DELETE ON audit_log
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_blocks_are_not_updated BEFORE UPDATE ON audit_blocks
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_blocks_are_not_deleted BEFORE DELETE ON audit_blocks
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_heads_are_not_deleted BEFORE DELETE ON audit_heads
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
