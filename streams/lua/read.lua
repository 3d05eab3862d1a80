-- Reads new entries of every lane up to its share, then offers what is left of the limit to the lanes that may have more.
-- An error of one lane must not throw away what another has delivered to us already, so it is returned beside it.
-- KEYS    the lanes' streams, those first that what is left is offered to first
-- ARGV    group, consumer, limit, then the share of each lane (0 or more; together no more than the limit)
-- Returns { server time in ms, per lane its entries { id, { field, value, ... } }, the first error or false }
local group, consumer = ARGV[1], ARGV[2]
local taken, asked = {}, {}
local spare = tonumber(ARGV[3])
local trouble = false

local function read(lane, count)
  local reply = redis.pcall('XREADGROUP', 'GROUP', group, consumer, 'COUNT', count, 'STREAMS', KEYS[lane], '>')
  if not reply then return {} end
  if reply.err then
    trouble = trouble or reply.err
    return {}
  end
  return reply[1][2]
end

for lane = 1, #KEYS do
  asked[lane] = tonumber(ARGV[lane + 3])
  taken[lane] = asked[lane] > 0 and read(lane, asked[lane]) or {}
  spare = spare - #taken[lane]
end

for lane = 1, #KEYS do
  if spare > 0 and #taken[lane] == asked[lane] then -- a lane that gave less has no more
    local more = read(lane, spare)
    for i = 1, #more do
      table.insert(taken[lane], more[i])
    end
    spare = spare - #more
  end
end

-- Before Redis 7.2 a read that finds nothing leaves no trace, and an idle consumer looks dead. Asking for our own pending
-- entries from the end of time on finds nothing either, but counts as a sign of life (and does not count as a delivery).
local anything = false
for lane = 1, #KEYS do
  anything = anything or #taken[lane] > 0
end
if not anything then
  for lane = 1, #KEYS do
    redis.pcall('XREADGROUP', 'GROUP', group, consumer, 'STREAMS', KEYS[lane], '18446744073709551614-0')
  end
end

local time = redis.call('TIME')
return { time[1] * 1000 + math.floor(time[2] / 1000), taken, trouble }
