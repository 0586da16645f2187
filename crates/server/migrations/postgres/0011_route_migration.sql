-- A shop that moves here route by route: which side answers on each, and how far both agree. No personal data: values are masked
-- before they come here.
CREATE TABLE route_modes (
    tenant        TEXT COLLATE "C" NOT NULL,
    route         TEXT COLLATE "C" NOT NULL,
    mode          TEXT             NOT NULL,
    changed_at_ms BIGINT           NOT NULL,
    PRIMARY KEY (tenant, route)
);

-- How often what came of requests.
CREATE TABLE route_parity (
    tenant         TEXT COLLATE "C" NOT NULL,
    route          TEXT COLLATE "C" NOT NULL,
    since_ms       BIGINT           NOT NULL,
    equal          BIGINT           NOT NULL,
    different      BIGINT           NOT NULL,
    legacy_failed  BIGINT           NOT NULL,
    unified_failed BIGINT           NOT NULL,
    PRIMARY KEY (tenant, route)
);

-- How often a field was different.
CREATE TABLE route_differences (
    tenant      TEXT COLLATE "C" NOT NULL,
    route       TEXT COLLATE "C" NOT NULL,
    field       TEXT COLLATE "C" NOT NULL,
    times       BIGINT           NOT NULL,
    first_at_ms BIGINT           NOT NULL,
    last_at_ms  BIGINT           NOT NULL,
    PRIMARY KEY (tenant, route, field)
);

-- The latest of them; the next one takes the place of the oldest.
CREATE TABLE route_examples (
    tenant     TEXT COLLATE "C" NOT NULL,
    route      TEXT COLLATE "C" NOT NULL,
    field      TEXT COLLATE "C" NOT NULL,
    place      BIGINT           NOT NULL,
    at_ms      BIGINT           NOT NULL,
    session_id TEXT,
    legacy     TEXT             NOT NULL,
    unified    TEXT             NOT NULL,
    PRIMARY KEY (tenant, route, field, place)
);
