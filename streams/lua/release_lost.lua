-- Releases the entries delivered in lost replies: the delivery does not count, and the entry is idle for longer than a
-- lease, so that a consumer takes it over at once. The time of delivery identifies them. It is set back as well: if this
-- reply is lost, too, a repeated call does not release them twice.
-- KEYS    the lanes' streams
-- ARGV    group, consumer, server time in ms of the first lost reply, lease in ms, then per lane a count and that many ids
--         that the consumer has in hand, so that their reply arrived
-- Returns how many were released
local group, consumer, since, lease = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local released = 0
local at = 5

for lane = 1, #KEYS do
  local in_hand = {}
  local count = tonumber(ARGV[at])
  for i = at + 1, at + count do
    in_hand[ARGV[i]] = true
  end
  at = at + 1 + count
  local start = '-'
  while start do
    local held = redis.pcall('XPENDING', KEYS[lane], group, start, '+', 100, consumer)
    if held.err then held = {} end -- no group, nothing to release
    for _, about in ipairs(held) do
      local id, idle, deliveries = about[1], about[3], about[4]
      if now - idle >= since and not in_hand[id] then
        redis.call('XCLAIM', KEYS[lane], group, consumer, 0, id,
          'IDLE', string.format('%.0f', math.max(now - since, 0) + lease), 'RETRYCOUNT', math.max(deliveries - 1, 0), 'JUSTID')
        released = released + 1
      end
    end
    start = #held == 100 and '(' .. held[100][1]
  end
end
return released
