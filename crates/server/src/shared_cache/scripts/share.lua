-- Accepts a change on top of an expected state.
-- KEYS: session, unflushed, sequence, channel
-- ARGV: member, epoch, expected version and tag, reached version and tag, message, entry
-- Returns: status, foreign, version

local entry = read(KEYS[1])
if not entry or entry.floor then
  return { 'missing', foreign, 0 }
end
local expected, reached = tonumber(ARGV[3]), tonumber(ARGV[5])
if entry.epoch == ARGV[2] and entry.version == reached and entry.tag == ARGV[6] then
  -- The same change again, because its answer was lost. It was published the first time.
  return { 'taken', foreign, reached }
end
if entry.epoch ~= ARGV[2] or entry.version > expected then
  return { 'conflict', foreign, entry.version }
end
if entry.version < expected then
  -- Redis lost what this change builds on, or was filled from the database meanwhile.
  return { 'missing', foreign, 0 }
end
if entry.tag ~= ARGV[4] then
  return { 'conflict', foreign, entry.version }
end
append(KEYS[1], expected, ARGV[5], ARGV[6], ARGV[8])
mark_unflushed(KEYS[1], KEYS[2], ARGV[1], 'keep')
publish(KEYS[3], KEYS[4], ARGV[7])
return { 'taken', foreign, reached }
