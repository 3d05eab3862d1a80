-- Reads new entries of every lane up to its share, then offers the rest of the limit to the lanes that may have more.
-- It reads no more bytes than the reply may have, but at least one entry. The size of entries shows when they are read: those
-- beyond the limit are put back unread, which no client sees, since a script is one step.
-- The error of one lane is returned beside the entries of the others, which count as delivered.
-- KEYS    the lanes' streams, in the order in which the rest of the limit is offered
-- ARGV    group, consumer, limit, most bytes, estimated bytes of an entry, then the share of each lane (0 or more; together
--         no more than the limit)
-- Returns { server time in ms, per lane its entries { id, { field, value, ... } }, the first error or false, their bytes }
local group, consumer = ARGV[1], ARGV[2]
local taken, asked = {}, {}
local spare, room, usual = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local number, bytes = 0, 0
local trouble, may_put_back = false, true

local LARGEST_STEP = 100

local function id_before(id)
  local ms, count = string.match(id, '(%d+)-(%d+)')
  if count == '0' then return string.format('%.0f-18446744073709551615', tonumber(ms) - 1) end
  return ms .. '-' .. string.format('%.0f', tonumber(count) - 1)
end

-- Puts entries back from `first` on, and removes them from `entries`. Without the right to set the group back they stay read:
-- to acknowledge them without it would lose them.
local function put_back(lane, entries, first)
  local before = first > 1 and entries[first - 1][1] or id_before(entries[first][1])
  if redis.pcall('XGROUP', 'SETID', KEYS[lane], group, before).err then return false end
  local ids = {}
  for i = #entries, first, -1 do
    ids[#ids + 1] = entries[i][1]
    entries[i] = nil
  end
  redis.pcall('XACK', KEYS[lane], group, unpack(ids))
  return true
end

-- Adds up to `count` entries to those taken from a lane.
local function read(lane, count)
  while count > 0 and bytes < room do
    -- In steps: later entries may be thousands of times as large as earlier ones, and all of a step are loaded at once.
    local wanted = math.min(count, LARGEST_STEP, math.max(1, math.floor((room - bytes) / usual)))
    local reply = redis.pcall('XREADGROUP', 'GROUP', group, consumer, 'COUNT', wanted, 'STREAMS', KEYS[lane], '>')
    if not reply then return end
    if reply.err then
      trouble = trouble or reply.err
      return
    end
    local entries = reply[1][2]
    local found = #entries
    for i = 1, found do
      local fields = entries[i][2]
      local size = #fields[1] + #fields[2] -- most entries have nothing else
      for f = 3, #fields do
        size = size + #fields[f]
      end
      if bytes + size > room and may_put_back and number > 0 then
        may_put_back = put_back(lane, entries, i)
        if may_put_back then
          room = 0
          break
        end
      end
      bytes = bytes + size
      number = number + 1
    end
    local into = taken[lane]
    if #into == 0 then
      taken[lane] = entries
    else
      for i = 1, #entries do
        into[#into + 1] = entries[i]
      end
    end
    if #entries < wanted then return end
    count = count - found
    usual = math.max(1, bytes / number)
  end
end

for lane = 1, #KEYS do
  asked[lane] = tonumber(ARGV[lane + 5])
  taken[lane] = {}
  read(lane, asked[lane])
  spare = spare - #taken[lane]
end

for lane = 1, #KEYS do
  if spare > 0 and #taken[lane] == asked[lane] then -- a lane that gave less has no more
    read(lane, spare)
    spare = spare - (#taken[lane] - asked[lane])
  end
end

-- Before Redis 7.2 a read that finds nothing leaves no trace, and an idle consumer looks dead. Reading its own pending
-- entries from the largest id on finds nothing either, but resets the idle time (and counts no delivery).
if number == 0 then
  for lane = 1, #KEYS do
    redis.pcall('XREADGROUP', 'GROUP', group, consumer, 'STREAMS', KEYS[lane], '18446744073709551614-0')
  end
end

local time = redis.call('TIME')
return { time[1] * 1000 + math.floor(time[2] / 1000), taken, trouble, bytes }
