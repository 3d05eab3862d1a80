-- Moves delayed messages that are due back into their lanes: all of it or nothing.
-- Each member leaves the set before its entry is added, so that it works at maxmemory (see ack.lua).
-- A message for a group (field `g`) that no longer exists comes back for all groups: else it would be lost.
-- KEYS    the lanes' streams, then the delayed set, then the dead-letter stream
-- ARGV    how many at most, then the lanes' names in the order of their streams
-- Returns { how many moved, score of the next one in ms or -1, server time in ms }
local lanes = #KEYS - 2
local delayed, dead = KEYS[lanes + 1], KEYS[lanes + 2]
local key_of = {}
for lane = 1, lanes do
  key_of[ARGV[lane + 1]] = KEYS[lane]
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local groups_of = {}

local function has_group(key, group)
  groups_of[key] = groups_of[key] or redis.pcall('XINFO', 'GROUPS', key)
  local groups = groups_of[key]
  if groups.err then return not string.find(groups.err, 'no such key', 1, true) end
  for _, facts in ipairs(groups) do
    if facts[2] == group then return true end -- the name comes first
  end
  return false
end

local due = redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, ARGV[1])

for _, member in ipairs(due) do
  redis.call('ZREM', delayed, member)
  local readable, message = pcall(cmsgpack.unpack, member)
  if readable and type(message) == 'table' and type(message[3]) == 'table' then
    -- The messages of a lane that is no longer configured go to the last lane.
    local key, fields = key_of[message[2]] or KEYS[lanes], message[3]
    for f = #fields - 1, 1, -2 do
      if fields[f] == 'g' and not has_group(key, fields[f + 1]) then
        table.remove(fields, f + 1)
        table.remove(fields, f)
      end
    end
    local added = redis.pcall('XADD', key, '*', unpack(fields))
    if type(added) == 'table' and added.err then
      redis.call('ZADD', delayed, now, member)
      return added
    end
  else
    -- Another program wrote it. In the set it would hold up every later message.
    redis.call('XADD', dead, '*', 'b', member, 'reason', 'unreadable delayed message')
  end
end

local head = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
return { #due, tonumber(head[2] or -1), now }
