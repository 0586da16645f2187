-- Drops an entry whose blobs turned out to be damaged, unless it was written again since.
-- KEYS: session, unflushed
-- ARGV: member, when the damaged entry was written, lifetime of a floor in ms
-- Returns: status, foreign, version

local entry = read(KEYS[1])
if not entry or entry.written ~= ARGV[2] then
  return { 'kept', foreign, 0 }
end
put_floor(KEYS[1], entry.durable, ARGV[3])
if has_type(KEYS[2], 'zset') then
  redis.call('ZREM', KEYS[2], ARGV[1])
end
return { 'dropped', foreign, entry.durable }
