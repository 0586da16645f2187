-- Removes a session with its tail. The floor keeps slow fillers from bringing it back.
-- KEYS: session, unflushed
-- ARGV: member, version, lifetime of a floor in ms
-- Returns: status, foreign, version

local entry = read(KEYS[1])
local version = tonumber(ARGV[2])
if entry then
  version = math.max(version, entry.floor or entry.durable)
end
put_floor(KEYS[1], version, ARGV[3])
if has_type(KEYS[2], 'zset') then
  redis.call('ZREM', KEYS[2], ARGV[1])
end
return { 'removed', foreign, version }
