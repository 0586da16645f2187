-- Puts what was read from the database, unless something as new is there.
-- KEYS: session, unflushed, sequence
-- ARGV: member, epoch, version, tag, snapshot, lifetime of an entry in ms, incarnation when the read began
-- Returns: status, foreign, version

local version = tonumber(ARGV[3])
if incarnation(KEYS[3]) ~= ARGV[7] then
  -- Redis lost its data while the database was read, and with it the floor that would have
  -- refused an old version.
  return { 'refused', foreign, 0 }
end
local entry = read(KEYS[1])
if entry then
  if entry.floor and entry.floor > version then
    return { 'refused', foreign, entry.floor }
  end
  -- Of two histories the newer cannot be told: only a commit (settle) may replace one by another.
  if entry.epoch and (entry.epoch ~= ARGV[2] or entry.version >= version) then
    return { 'refused', foreign, entry.version }
  end
end
put_entry(KEYS[1], ARGV[2], version, ARGV[4], ARGV[5])
mark_flushed(KEYS[1], KEYS[2], ARGV[1], ARGV[6])
return { 'taken', foreign, version }
