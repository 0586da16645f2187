-- The key of each session, encrypted by a key of the key ring, whose public name stands beside it. States and journals are
-- encrypted with it.
ALTER TABLE sessions ADD COLUMN data_key BLOB NOT NULL DEFAULT x'';
ALTER TABLE sessions ADD COLUMN root_key_id TEXT NOT NULL DEFAULT '';

-- After a rotation those are looked for that are not under the new key yet, one after another.
CREATE INDEX sessions_by_root_key ON sessions (root_key_id, tenant, session_id);
