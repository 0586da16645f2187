-- The database has a state: the snapshot moves there, the tail is trimmed.
-- KEYS: session, unflushed, sequence, channel
-- ARGV: member, epoch, version, tag, message, snapshot, lifetime of an entry in ms
-- Returns: status, foreign, version

local entry = read(KEYS[1])
local version = tonumber(ARGV[3])
if entry and entry.floor and entry.floor > version then
  return { 'outdated', foreign, entry.floor }
end
if entry and entry.epoch == ARGV[2] and entry.durable > version then
  return { 'outdated', foreign, entry.durable }
end
if entry and entry.epoch == ARGV[2] and entry.version > version
    and (entry.durable == version or tag_at(KEYS[1], version) == ARGV[4]) then
  -- Some of the tail builds on this very state and is still to be flushed: it stays, and counts as touched now.
  for trimmed = entry.durable + 1, version do
    redis.call('HDEL', KEYS[1], 't' .. decimal(trimmed), 'm' .. decimal(trimmed))
  end
  redis.call('HSET', KEYS[1], 'd', decimal(version), 's', ARGV[6], 'w', now)
  mark_unflushed(KEYS[1], KEYS[2], ARGV[1], 'now')
else
  -- Nothing there, the whole tail flushed, a tail that does not reach, or another history:
  -- the database is right.
  put_entry(KEYS[1], ARGV[2], version, ARGV[4], ARGV[6])
  mark_flushed(KEYS[1], KEYS[2], ARGV[1], ARGV[7])
end
publish(KEYS[3], KEYS[4], ARGV[5])
return { 'taken', foreign, version }
