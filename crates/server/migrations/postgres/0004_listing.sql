-- Lists are in the order of the latest change; each index gives that order within what it finds.
DROP INDEX sessions_by_email;
CREATE INDEX sessions_by_email ON sessions (tenant, email_digest, updated_at_ms DESC, session_id)
    WHERE email_digest IS NOT NULL;
DROP INDEX sessions_by_step;
CREATE INDEX sessions_by_step ON sessions (tenant, step, status, updated_at_ms DESC, session_id);
-- Statistics are of the sessions that were created in some time.
CREATE INDEX sessions_created ON sessions (tenant, created_at_ms);
