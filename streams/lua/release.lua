-- Releases the unfinished entries of a consumer that stops: another one may take them over at once, and their deliveries are
-- counted as before this one. Only entries that it still holds.
-- KEYS    the lanes' streams
-- ARGV    group, consumer, ms to make them idle for, then per lane a count and that many pairs of entry id and deliveries
-- Returns how many were released
local group, consumer, idle_ms = ARGV[1], ARGV[2], ARGV[3]
local released = 0
local at = 4
for lane = 1, #KEYS do
  local count = tonumber(ARGV[at])
  for i = at + 1, at + 2 * count, 2 do
    local id, deliveries = ARGV[i], ARGV[i + 1]
    local found = redis.pcall('XPENDING', KEYS[lane], group, id, id, 1)
    local pending = found[1] -- none after a flush
    if pending and pending[2] == consumer then
      redis.call('XCLAIM', KEYS[lane], group, consumer, 0, id, 'IDLE', idle_ms, 'RETRYCOUNT', deliveries, 'JUSTID')
      released = released + 1
    end
  end
  at = at + 1 + 2 * count
end
return released
