-- Of which session an answer tells: it goes when the session is erased.
ALTER TABLE idempotency ADD COLUMN session_id TEXT;

CREATE INDEX idempotency_session ON idempotency (tenant, session_id);
