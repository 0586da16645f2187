-- Puts a session back that Redis lost: the snapshot and everything accepted after it.
-- KEYS: session, unflushed, sequence, channel
-- ARGV: member, epoch, durable version, message, snapshot, entries...
-- Returns: status, foreign, version

local entry = read(KEYS[1])
local durable = tonumber(ARGV[3])
local version = durable + #ARGV - 5
if entry and entry.floor and entry.floor > durable then
  return { 'conflict', foreign, entry.floor }
end
if entry and not entry.floor then
  if entry.epoch == ARGV[2] and entry.version == version and ends_with(KEYS[1], version, ARGV[#ARGV]) then
    -- The same again, because its answer was lost.
    return { 'taken', foreign, version }
  end
  -- The same snapshot, filled meanwhile from the database, is no contradiction. Anything else is.
  local same = entry.epoch == ARGV[2] and entry.durable == durable and entry.version == durable
  if not same then
    return { 'conflict', foreign, entry.version }
  end
end
put_entry(KEYS[1], ARGV[2], durable, ARGV[5])
append(KEYS[1], durable, 6, #ARGV)
mark_unflushed(KEYS[1], KEYS[2], ARGV[1], 'keep')
publish(KEYS[3], KEYS[4], ARGV[4])
return { 'taken', foreign, version }
