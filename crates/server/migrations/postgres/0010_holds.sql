-- Until when a session may be neither erased nor deleted.
ALTER TABLE sessions ADD COLUMN held_until_ms BIGINT;
