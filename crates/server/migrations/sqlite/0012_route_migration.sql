-- A shop that moves here route by route: which side answers on each, and how far both agree. No personal data: values are masked
-- before they come here.
CREATE TABLE route_modes (
    tenant TEXT NOT NULL,
    route TEXT NOT NULL,
    mode TEXT NOT NULL,
    changed_at_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant, route)
) STRICT;

-- How often what came of requests.
CREATE TABLE route_parity (
    tenant TEXT NOT NULL,
    route TEXT NOT NULL,
    since_ms INTEGER NOT NULL,
    equal INTEGER NOT NULL,
    different INTEGER NOT NULL,
    legacy_failed INTEGER NOT NULL,
    unified_failed INTEGER NOT NULL,
    PRIMARY KEY (tenant, route)
) STRICT;

-- How often a field was different.
CREATE TABLE route_differences (
    tenant TEXT NOT NULL,
    route TEXT NOT NULL,
    field TEXT NOT NULL,
    times INTEGER NOT NULL,
    first_at_ms INTEGER NOT NULL,
    last_at_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant, route, field)
) STRICT;

-- The latest of them; the next one takes the place of the oldest.
CREATE TABLE route_examples (
    tenant TEXT NOT NULL,
    route TEXT NOT NULL,
    field TEXT NOT NULL,
    place INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    session_id TEXT,
    legacy TEXT NOT NULL,
    unified TEXT NOT NULL,
    PRIMARY KEY (tenant, route, field, place)
) STRICT;
