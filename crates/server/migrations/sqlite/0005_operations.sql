-- When the buyer's funnel was completed.
ALTER TABLE sessions ADD COLUMN completed_at_ms INTEGER;
-- A keyed hash of the email address: finds a buyer's sessions, and tells nothing without the key.
ALTER TABLE sessions ADD COLUMN email_digest BLOB;
-- Until when one process has taken on what is due about the session.
ALTER TABLE sessions ADD COLUMN claimed_until_ms INTEGER;

CREATE INDEX sessions_by_status ON sessions (tenant, status, updated_at_ms DESC, session_id);
CREATE INDEX sessions_by_step ON sessions (tenant, step, updated_at_ms DESC, session_id);
CREATE INDEX sessions_by_email ON sessions (tenant, email_digest) WHERE email_digest IS NOT NULL;
-- What may be deleted, the longest untouched first.
CREATE INDEX sessions_ended ON sessions (updated_at_ms) WHERE status IN ('completed', 'failed', 'expired');
