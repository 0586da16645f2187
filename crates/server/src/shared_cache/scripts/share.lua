-- Accepts a change on top of an expected version.
-- KEYS: session, unflushed, sequence, channel
-- ARGV: member, epoch, expected version, message, entries...
-- Returns: status, foreign, version

local entry = read(KEYS[1])
if not entry or entry.floor then
  return { 'missing', foreign, 0 }
end
local expected = tonumber(ARGV[3])
local version = expected + #ARGV - 4
if entry.epoch == ARGV[2] and entry.version == version and ends_with(KEYS[1], version, ARGV[#ARGV]) then
  -- The same change again, because its answer was lost. It was published the first time.
  return { 'taken', foreign, version }
end
if entry.epoch ~= ARGV[2] or entry.version > expected then
  return { 'conflict', foreign, entry.version }
end
if entry.version < expected then
  -- Redis lost what this change builds on, or was filled from the database meanwhile.
  return { 'missing', foreign, 0 }
end
append(KEYS[1], entry.version, 5, #ARGV)
mark_unflushed(KEYS[1], KEYS[2], ARGV[1], 'keep')
publish(KEYS[3], KEYS[4], ARGV[4])
return { 'taken', foreign, version }
