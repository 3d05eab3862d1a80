-- Settles a batch: takes every entry out of its lane (XACK with XDEL), then adds what has to live on.
-- Deleting comes first: at maxmemory a script may add once it has written, so draining works on a full server too.
-- An entry that is gone already (a flush came between) is no error, and what has to live on is still added.
-- KEYS    the lanes' streams, then the delayed set, then the dead-letter stream
-- ARGV    group; per lane a count and that many entry ids;
--         a count of retries, each: delay in ms, entry id, lane name, n, then n field parts;
--         a count of dead letters, each: n, then n field parts
-- Returns how many of the entries were still there
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
local found = 0

for lane = 1, lanes do
  local count = number()
  if count > 0 then
    local ids = take(count)
    redis.call('XACK', KEYS[lane], group, unpack(ids))
    found = found + redis.call('XDEL', KEYS[lane], unpack(ids))
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

return found
