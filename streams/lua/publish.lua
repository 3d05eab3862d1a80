-- Adds entries, each unless its lane is at its limit.
-- KEYS    the lanes' streams
-- ARGV    longest length of a lane (-1: no limit), then per entry: lane (from 1), n, then n field parts
-- Returns the id of each entry, or false where the lane is full
local limit = tonumber(ARGV[1])
local room = {}
local ids = {}
local at = 2
while at <= #ARGV do
  local lane, count = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  if limit >= 0 and not room[lane] then
    room[lane] = limit - redis.call('XLEN', KEYS[lane])
  end
  if limit < 0 or room[lane] > 0 then
    ids[#ids + 1] = redis.call('XADD', KEYS[lane], '*', unpack(ARGV, at + 2, at + 1 + count))
    if limit >= 0 then room[lane] = room[lane] - 1 end
  else
    ids[#ids + 1] = false
  end
  at = at + 2 + count
end
return ids
