-- Settles a batch: takes every entry out of its lane (XACK with XDEL), then adds what has to live on.
-- An entry that another group has not read yet, or still works on, stays for it: the last group to acknowledge deletes.
-- Deleting comes first: at maxmemory a script may add once it has written, so draining works on a full server too.
-- An entry that is gone already (a flush came between) is no error, and what has to live on is still added.
-- KEYS    the lanes' streams, then the delayed set, then the dead-letter stream
-- ARGV    group; per lane a count and that many entry ids;
--         a count of retries, each: delay in ms, entry id, lane name, n, then n field parts;
--         a count of dead letters, each: n, then n field parts
-- Returns how many of the entries were deleted
local group = ARGV[1]
local lanes = #KEYS - 2
local delayed, dead = KEYS[lanes + 1], KEYS[lanes + 2]
local at = 2

local function take(count)
  local part = { unpack(ARGV, at, at + count - 1) }
  at = at + count
  return part
end

local function number()
  at = at + 1
  return tonumber(ARGV[at - 1])
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local deleted = 0

local function other_groups(key)
  local groups, others = redis.pcall('XINFO', 'GROUPS', key), {}
  if groups.err then
    if string.find(groups.err, 'no such key', 1, true) then return others end
    error(groups.err) -- may we not know of other groups, we may not delete
  end
  for _, facts in ipairs(groups) do
    local about = {}
    for i = 1, #facts, 2 do
      about[facts[i]] = facts[i + 1]
    end
    if about['name'] ~= group then others[#others + 1] = about end
  end
  return others
end

local function is_after(id, other_id)
  local ms, number_in_ms = string.match(id, '(%d+)-(%d+)')
  local other_ms, other_number = string.match(other_id, '(%d+)-(%d+)')
  ms, other_ms = tonumber(ms), tonumber(other_ms)
  return ms > other_ms or (ms == other_ms and tonumber(number_in_ms) > tonumber(other_number))
end

local function is_wanted(key, id, others)
  for _, other in ipairs(others) do
    if is_after(id, other['last-delivered-id']) then return true end
    if #redis.call('XPENDING', key, other['name'], id, id, 1) > 0 then return true end
  end
  return false
end

for lane = 1, lanes do
  local count = number()
  if count > 0 then
    local ids = take(count)
    local others = other_groups(KEYS[lane])
    redis.call('XACK', KEYS[lane], group, unpack(ids))
    if #others == 0 then
      deleted = deleted + redis.call('XDEL', KEYS[lane], unpack(ids))
    else
      for _, id in ipairs(ids) do
        if not is_wanted(KEYS[lane], id, others) then
          deleted = deleted + redis.call('XDEL', KEYS[lane], id)
        end
      end
    end
  end
end

for _ = 1, number() do
  local due = now + number()
  local about = take(2)
  -- The entry's own id makes the member unique, and the same again when a settle is repeated after a lost reply.
  redis.call('ZADD', delayed, due, cmsgpack.pack({ about[1], about[2], take(number()) }))
end

for _ = 1, number() do
  redis.call('XADD', dead, '*', unpack(take(number())))
end

return deleted
