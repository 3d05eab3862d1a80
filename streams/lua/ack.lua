-- Acks a batch: adds retries and dead letters, then takes the entries out of their lanes (XACK with XDEL), each only while
-- the consumer holds it. One that slept through its lease must not ack, delay or bury an entry that another consumer has
-- now. An entry that another group has not read yet, or has pending, stays for it: the last group to acknowledge deletes it.
-- Entries are independent: one that cannot be written stays pending, and keeps no other from being acked. At maxmemory a
-- script may add once it has written. So that draining works on a full server, it first deletes an id that does not exist.
-- KEYS    the lanes' streams, then the delayed set, then the dead-letter stream
-- ARGV    group, consumer; 1 if the group was recreated since the entries were read, else 0: an entry
--         that is not pending then belongs to the consumer;
--         per lane a count and that many entry ids, in order where that costs nothing;
--         a count of retries, each: lane (from 1), entry id, delay in ms, lane name, n, then n field parts;
--         a count of dead letters, each: lane (from 1), entry id, n, then n field parts
-- Returns { lane, id, reason, ... } of the entries that were not acked. Reason: `taken` by another consumer, `gone` (taken
-- and acked), or the error
local group, consumer, recreated = ARGV[1], ARGV[2], ARGV[3] == '1'
local lanes = #KEYS - 2
local delayed, dead = KEYS[lanes + 1], KEYS[lanes + 2]
local not_acked = {}
local may_add = false
local at = 4
local ALL = {} -- stands for all entries of a lane, in place of a set

local function number()
  at = at + 1
  return tonumber(ARGV[at - 1])
end

local function take(count)
  local part = { unpack(ARGV, at, at + count - 1) }
  at = at + count
  return part
end

local function leave(lane, id, why)
  not_acked[#not_acked + 1] = lane
  not_acked[#not_acked + 1] = id
  not_acked[#not_acked + 1] = why
end

-- Returns the facts of this group (nil after a flush) and of all others, or an error.
local function groups_of(key)
  local found, own, others = redis.pcall('XINFO', 'GROUPS', key), nil, {}
  if found.err then
    if string.find(found.err, 'no such key', 1, true) then return own, others end
    return own, others, found.err -- other groups may exist: nothing may be deleted
  end
  for i = 1, #found do
    if found[i][2] == group then own = found[i] else others[#others + 1] = found[i] end -- the name comes first
  end
  return own, others
end

-- Returns true if the group has delivered the entry: not if it is new, or failed over to a server that lacks the delivery.
local function has_delivered(facts, id)
  if not facts then return false end
  local last_id
  for i = 1, #facts, 2 do
    if facts[i] == 'last-delivered-id' then last_id = facts[i + 1] end
  end
  local ms, number_in_ms = string.match(id, '(%d+)-(%d+)')
  local last_ms, last_number = string.match(last_id, '(%d+)-(%d+)')
  ms, last_ms = tonumber(ms), tonumber(last_ms)
  return ms < last_ms or (ms == last_ms and tonumber(number_in_ms) <= tonumber(last_number))
end

local function is_wanted(key, id, others)
  for _, other in ipairs(others) do
    if not has_delivered(other, id) then return true end
    if #redis.call('XPENDING', key, other[2], id, id, 1) > 0 then return true end
  end
  return false
end

-- Returns the entries that the consumer holds: ALL, or a set. One XPENDING for all of them mostly suffices, since they are in
-- order, and nothing else is between.
local function owned(lane, ids, own)
  local ours = {}
  local key = KEYS[lane]
  local held = redis.pcall('XPENDING', key, group, ids[1], ids[#ids], #ids, consumer)
  if #held == #ids then
    local same = 1
    while held[same] and held[same][1] == ids[same] do
      same = same + 1
    end
    if same > #ids then return ALL end
  end
  for i = 1, held.err and 0 or #held do
    ours[held[i][1]] = true
  end
  for i = 1, #ids do
    local id = ids[i]
    if not ours[id] then
      local found = redis.pcall('XPENDING', key, group, id, id, 1)
      local pending = found[1]
      if found.err and not string.find(found.err, 'NOGROUP', 1, true) then
        leave(lane, id, found.err)
      elseif pending and pending[2] ~= consumer then
        leave(lane, id, 'taken')
      elseif pending or recreated or not has_delivered(own, id) then
        ours[id] = true
      else
        leave(lane, id, 'gone')
      end
    end
  end
  return ours
end

-- Adds the retry or dead letter of an entry that the consumer holds; if that fails, the entry stays.
local function keep(ids, ours, lane, id, ...)
  if ours[lane] == ALL or ours[lane][id] then
    may_add = may_add or redis.pcall('XDEL', dead, '0-1') -- no entry has this id
    local added = redis.pcall(...)
    if type(added) == 'table' and added.err then
      if ours[lane] == ALL then
        ours[lane] = {}
        for i = 1, #ids[lane] do ours[lane][ids[lane][i]] = true end
      end
      ours[lane][id] = nil
      leave(lane, id, added.err)
    end
  end
end

local function remove(key, ids, others)
  redis.call('XACK', key, group, unpack(ids))
  if #others == 0 then
    redis.call('XDEL', key, unpack(ids))
    return
  end
  for _, id in ipairs(ids) do
    if not is_wanted(key, id, others) then
      redis.call('XDEL', key, id)
    end
  end
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ids, ours, others = {}, {}, {}

for lane = 1, lanes do
  ids[lane], ours[lane] = take(number()), {}
  if #ids[lane] > 0 then
    local own, trouble
    own, others[lane], trouble = groups_of(KEYS[lane])
    if trouble then
      for _, id in ipairs(ids[lane]) do leave(lane, id, trouble) end
    else
      ours[lane] = owned(lane, ids[lane], own)
    end
  end
end

for _ = 1, number() do
  local lane, id, due, name = number(), take(1)[1], now + number(), take(1)[1]
  -- The entry's id makes the member unique, and the same when an ack is repeated after a lost reply.
  keep(ids, ours, lane, id, 'ZADD', delayed, due, cmsgpack.pack({ id, name, take(number()) }))
end

for _ = 1, number() do
  local lane, id = number(), take(1)[1]
  keep(ids, ours, lane, id, 'XADD', dead, '*', unpack(take(number())))
end

for lane = 1, lanes do
  local acked = ids[lane]
  if ours[lane] ~= ALL then
    acked = {}
    for _, id in ipairs(ids[lane]) do
      if ours[lane][id] then acked[#acked + 1] = id end
    end
  end
  if #acked > 0 then
    remove(KEYS[lane], acked, others[lane])
  end
end

return not_acked
