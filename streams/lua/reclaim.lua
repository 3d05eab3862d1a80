-- Takes over entries whose consumer has been silent for too long, and counts the delivery.
-- XAUTOCLAIM with JUSTID finds them, XCLAIM counts and reads them. (Without JUSTID, Redis 6.2 answers nil for an entry
-- that was deleted, which leaves no id to acknowledge it by.)
-- KEYS    a lane's stream
-- ARGV    group, consumer, smallest idle time in ms, cursor, count
-- Returns { next cursor, { { id, deliveries, { field, value, ... } } } }
local group, consumer = ARGV[1], ARGV[2]
local scan = redis.call('XAUTOCLAIM', KEYS[1], group, consumer, ARGV[3], ARGV[4], 'COUNT', ARGV[5], 'JUSTID')
local taken = {}
for _, id in ipairs(scan[2]) do
  local entry = redis.call('XCLAIM', KEYS[1], group, consumer, 0, id)[1]
  if entry then
    local pending = redis.call('XPENDING', KEYS[1], group, id, id, 1)[1]
    taken[#taken + 1] = { id, pending[4], entry[2] }
  else
    redis.call('XACK', KEYS[1], group, id)
  end
end
return { scan[1], taken }
