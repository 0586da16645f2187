-- The audit log: who did what, written with the change it tells of, and never changed afterwards.

-- Whoever takes a position has to have a transaction id before: then, once all transactions up to some id are over, no position
-- up to some other is still to come.
CREATE SEQUENCE audit_positions;

CREATE TABLE audit_log (
    tenant   TEXT COLLATE "C" NOT NULL,
    position BIGINT           NOT NULL CHECK (position > 0),
    -- What is told, as JSON. Holds no personal data.
    body     TEXT             NOT NULL,
    -- HMAC of tenant and body by a key of the key ring, and that key's public name.
    mac      BYTEA            NOT NULL,
    key_id   TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant, position)
);

-- A tenant's records in blocks, each of which holds the hash of the one before.
CREATE TABLE audit_blocks (
    tenant           TEXT COLLATE "C" NOT NULL,
    sequence         BIGINT           NOT NULL,
    -- It is about the records after those of the block before, up to this position.
    through_position BIGINT           NOT NULL,
    records          BIGINT           NOT NULL,
    -- Those among them that nobody with the key ring had written.
    foreign_records  BIGINT           NOT NULL,
    sealed_at_ms     BIGINT           NOT NULL,
    previous_hash    BYTEA            NOT NULL,
    records_digest   BYTEA            NOT NULL,
    hash             BYTEA            NOT NULL,
    PRIMARY KEY (tenant, sequence)
);

-- A tenant's latest block, so that a chain that was cut at its end is found.
CREATE TABLE audit_heads (
    tenant           TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    sequence         BIGINT           NOT NULL,
    through_position BIGINT           NOT NULL,
    hash             BYTEA            NOT NULL,
    mac              BYTEA            NOT NULL,
    key_id           TEXT COLLATE "C" NOT NULL
);

CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'the audit log is append-only: % of % is refused', TG_OP, TG_TABLE_NAME; END $$;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_blocks
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON audit_heads
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
