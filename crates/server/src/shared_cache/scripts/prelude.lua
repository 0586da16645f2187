-- What all scripts share; it stands before each of them.
--
-- A session's key is a hash. Either an entry:
--   f      '1', the format
--   e      the epoch, a decimal number that is only ever compared for equality (it may be beyond 2^53)
--   v, d   the accepted version; the version that the database had when the snapshot was put
--   w      when it was last written: Redis' time in microseconds
--   s      the snapshot of version d
--   m      the tag of the accepted state: of two states with one version only one has it
--   t<n>   the entry of the tail that leads to version n; the last one leads to v
--   m<n>   the version that it follows on, ':', and the tag of the state at n
-- or a floor: f and `floor`, the version that the database is known to have.
--
-- Versions are below 2^53, so Lua's numbers hold them exactly. Whatever has another type or form
-- is not ours, or damaged: it is deleted, counted in `foreign`, and taken for absent.

local FORMAT = '1'
local foreign = 0

local clock = redis.call('TIME')
local now = clock[1] .. string.format('%06d', tonumber(clock[2]))
local now_ms = clock[1] .. string.format('%03d', math.floor(tonumber(clock[2]) / 1000))

-- Lua would write large numbers as 1e+15.
local function decimal(number)
  return string.format('%.0f', number)
end

local function version_of(text)
  if text and string.match(text, '^%d+$') then
    return tonumber(text)
  end
  return nil
end

local function discard_foreign(key)
  redis.call('DEL', key)
  foreign = foreign + 1
end

local function has_type(key, wanted)
  local found = redis.call('TYPE', key)['ok']
  if found == wanted then
    return true
  end
  if found ~= 'none' then
    discard_foreign(key)
  end
  return false
end

-- The entry or floor at `key`: {epoch, version, durable}, {floor}, or nil.
local function read(key)
  if not has_type(key, 'hash') then
    return nil
  end
  local field = redis.call('HMGET', key, 'f', 'e', 'v', 'd', 'w', 'floor', 'm')
  if field[1] == FORMAT then
    local floor = version_of(field[6])
    if floor then
      return { floor = floor }
    end
    local version, durable = version_of(field[3]), version_of(field[4])
    local whole = version and durable and version >= durable and version_of(field[2]) and version_of(field[5])
      and version_of(field[7])
    if whole and redis.call('HSTRLEN', key, 's') > 0 then
      return { epoch = field[2], version = version, durable = durable, written = field[5], tag = field[7] }
    end
  end
  discard_foreign(key)
  return nil
end

local function put_floor(key, version, lifetime_ms)
  redis.call('DEL', key)
  redis.call('HSET', key, 'f', FORMAT, 'floor', decimal(version))
  redis.call('PEXPIRE', key, lifetime_ms)
end

local function put_entry(key, epoch, durable, tag, snapshot)
  redis.call('DEL', key)
  local version = decimal(durable)
  redis.call('HSET', key, 'f', FORMAT, 'e', epoch, 'v', version, 'd', version, 'm', tag, 'w', now, 's', snapshot)
end

-- Appends an entry that leads from one version to another one, a decimal number.
local function append(key, previous, version, tag, entry)
  local mark = decimal(previous) .. ':' .. tag
  redis.call('HSET', key, 't' .. version, entry, 'm' .. version, mark, 'v', version, 'm', tag, 'w', now)
end

-- The tag of the state that the tail has at a version, if an entry leads to it.
local function tag_at(key, version)
  local mark = redis.call('HGET', key, 'm' .. decimal(version))
  return mark and string.match(mark, '^%d+:(%d+)$')
end

-- An entry with a tail is the only copy that servers share: it never expires, and is marked.
local function mark_unflushed(key, index, member, since)
  redis.call('PERSIST', key)
  has_type(index, 'zset')
  if since == 'keep' then
    redis.call('ZADD', index, 'NX', now_ms, member)
  else
    redis.call('ZADD', index, now_ms, member)
  end
end

local function mark_flushed(key, index, member, lifetime_ms)
  redis.call('PEXPIRE', key, lifetime_ms)
  if has_type(index, 'zset') then
    redis.call('ZREM', index, member)
  end
end

-- Which life of the partition's counter this is: a new one begins whenever Redis lost it.
local function incarnation(sequence)
  if not has_type(sequence, 'hash') then
    return '0'
  end
  local found = redis.call('HGET', sequence, 'i')
  if found and version_of(found) then
    return found
  end
  return '0'
end

-- Sends `body` to everyone, with the next number of the partition before it.
local function publish(sequence, channel, body)
  local life = incarnation(sequence)
  local counted = redis.pcall('HINCRBY', sequence, 'n', 1)
  if life == '0' or type(counted) ~= 'number' then
    -- New, or damaged: either way a new life, which every receiver takes for an interruption.
    redis.call('DEL', sequence)
    redis.call('HSET', sequence, 'i', now, 'n', '1')
    life, counted = now, 1
  end
  redis.call('SPUBLISH', channel, 'TL1 ' .. life .. ' ' .. decimal(counted) .. ' ' .. now .. '\n' .. body)
end
