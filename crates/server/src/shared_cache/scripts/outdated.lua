-- The database is known to have a version: what is older, and has no tail, goes.
-- KEYS: session
-- ARGV: version, lifetime of a floor in ms
-- Returns: status, foreign, version, durable version

local entry = read(KEYS[1])
local version = tonumber(ARGV[1])
if entry and entry.epoch then
  if entry.version > entry.durable then
    return { 'tail', foreign, entry.version, entry.durable }
  end
  if entry.durable >= version then
    return { 'current', foreign, entry.version, entry.durable }
  end
end
if entry and entry.floor then
  version = math.max(version, entry.floor)
end
put_floor(KEYS[1], version, ARGV[2])
return { 'dropped', foreign, version, version }
