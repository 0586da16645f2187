-- Reads a session.
-- KEYS: session, sequence
-- Returns: status, foreign, number, incarnation, fields

local life = incarnation(KEYS[2])
local entry = read(KEYS[1])
if not entry then
  return { 'nothing', foreign, 0, life, {} }
end
if entry.floor then
  return { 'floor', foreign, entry.floor, life, {} }
end
return { 'session', foreign, entry.version, life, redis.call('HGETALL', KEYS[1]) }
