-- Takes over entries that have been idle for too long, and counts the delivery. XAUTOCLAIM with JUSTID finds them, XCLAIM
-- counts and reads them. (Without JUSTID, Redis 6.2 returns nil for a deleted entry, which leaves no id to acknowledge.) An
-- entry on its last delivery may have killed its workers, or may only have died beside the one that did. It is taken alone,
-- so that poison dies alone. A call that does not want it leaves its idle time unchanged. It takes no more bytes than the
-- reply may have, but at least one entry: the rest is left uncounted, and the scan continues there.
-- KEYS    a lane's stream
-- ARGV    group, consumer, smallest idle time in ms, cursor, count, deliveries before the last one (0: no such rule),
--         `last` to take one entry on its last delivery and nothing else, most bytes
-- Returns { next cursor, { { id, deliveries, { field, value, ... } } }, number of last deliveries left, bytes of what was
-- taken, 1 if the byte limit ended the scan }
local group, consumer, min_idle = ARGV[1], ARGV[2], ARGV[3]
local before_last = tonumber(ARGV[6])
local wants_last = ARGV[7] == 'last'
local room = tonumber(ARGV[8])
local scan = redis.call('XAUTOCLAIM', KEYS[1], group, consumer, min_idle, ARGV[4], 'COUNT', ARGV[5], 'JUSTID')
local taken = {}
local left, bytes = 0, 0
local full_at = false

local function leave(id)
  redis.call('XCLAIM', KEYS[1], group, consumer, 0, id, 'IDLE', min_idle, 'JUSTID')
end

for _, id in ipairs(scan[2]) do
  local deliveries = redis.call('XPENDING', KEYS[1], group, id, id, 1)[1][4]
  local last = before_last > 0 and deliveries == before_last
  if full_at then
    leave(id)
  elseif last and not (wants_last and #taken == 0) then
    leave(id)
    left = left + 1
  elseif wants_last and not last then
    leave(id)
  else
    local entry = redis.call('XCLAIM', KEYS[1], group, consumer, 0, id)[1]
    if entry then
      local size = 0
      for f = 1, #entry[2] do
        size = size + #entry[2][f]
      end
      if bytes + size > room and #taken > 0 then
        redis.call('XCLAIM', KEYS[1], group, consumer, 0, id, 'IDLE', min_idle, 'RETRYCOUNT', deliveries, 'JUSTID')
        full_at = id
      else
        bytes = bytes + size
        taken[#taken + 1] = { id, deliveries + 1, entry[2] }
      end
    else
      redis.call('XACK', KEYS[1], group, id)
    end
  end
end
return { full_at or scan[1], taken, left, bytes, full_at and 1 or 0 }
