-- Who uses this database, and which Redis they talk to: servers that talk to different ones do not hear each other.
-- Each writes its row every second; nothing of it has to survive a crash.
CREATE UNLOGGED TABLE servers (
    id      TEXT COLLATE "C" PRIMARY KEY,
    -- Empty for one that reaches none.
    redis   TEXT COLLATE "C" NOT NULL,
    seen_at TIMESTAMPTZ      NOT NULL
);
