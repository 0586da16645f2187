-- Gives out sessions whose tail nobody flushed for a while, each to one caller for the time of its lease.
-- KEYS: unflushed
-- ARGV: for how long in ms, lease in ms, at most how many, what the sessions' keys begin with
-- Returns: 'taken', foreign, members
--
-- The score is since when; a taken session's is moved so that it is due again when the lease is over.
-- The sessions' keys are not declared, but carry the same hash tag, so they are on this node.

local taken = {}
if has_type(KEYS[1], 'zset') then
  local latest = decimal(tonumber(now_ms) - tonumber(ARGV[1]))
  local again = decimal(tonumber(now_ms) - tonumber(ARGV[1]) + tonumber(ARGV[2]))
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', latest, 'LIMIT', 0, ARGV[3])) do
    local entry = read(ARGV[4] .. member)
    if entry and entry.epoch and entry.version > entry.durable then
      redis.call('ZADD', KEYS[1], again, member)
      table.insert(taken, member)
    else
      -- Evicted, or flushed by someone who could not say so.
      redis.call('ZREM', KEYS[1], member)
    end
  end
end
return { 'taken', foreign, taken }
