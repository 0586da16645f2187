-- Lists are in the order of creation, which never changes: a walk over them misses nothing and sees nothing twice, and an
-- ordinary command touches no index, so that PostgreSQL writes the new row beside the old one and is done (a heap-only
-- tuple). What is indexed here must not change with every command.
DROP INDEX sessions_recent;
DROP INDEX sessions_by_status;
DROP INDEX sessions_by_step;
DROP INDEX sessions_by_email;
DROP INDEX sessions_ended;
DROP INDEX sessions_created;
CREATE INDEX sessions_recent ON sessions (tenant, created_at_ms DESC, session_id);
CREATE INDEX sessions_by_status ON sessions (tenant, status, created_at_ms DESC, session_id);
CREATE INDEX sessions_by_step ON sessions (tenant, step, status, created_at_ms DESC, session_id);
CREATE INDEX sessions_by_email ON sessions (tenant, email_digest, created_at_ms DESC, session_id)
    WHERE email_digest IS NOT NULL;

-- Since when a session is over: what may be deleted, the longest over first.
ALTER TABLE sessions ADD COLUMN ended_at_ms BIGINT;
UPDATE sessions SET ended_at_ms = updated_at_ms WHERE status IN ('completed', 'failed', 'expired');
CREATE INDEX sessions_ended ON sessions (ended_at_ms) WHERE ended_at_ms IS NOT NULL;

-- Room in each page for the next version of its rows.
ALTER TABLE sessions SET (fillfactor = 70);
