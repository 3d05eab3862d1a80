-- Renews the leases of entries that the consumer still holds. A plain XCLAIM does not check that: a consumer that slept
-- through its lease would steal the entry back from the one that took it over.
-- KEYS    the lanes' streams
-- ARGV    group, consumer, then per lane a count and that many entry ids
-- Returns { lane (from 1), id, lane, id, ... } of the entries that it no longer holds
local group, consumer = ARGV[1], ARGV[2]
local lost = {}
local at = 3
for lane = 1, #KEYS do
  local count = tonumber(ARGV[at])
  for i = at + 1, at + count do
    local id = ARGV[i]
    local pending = redis.call('XPENDING', KEYS[lane], group, id, id, 1)[1]
    if pending and pending[2] == consumer then
      redis.call('XCLAIM', KEYS[lane], group, consumer, 0, id, 'JUSTID')
    else
      lost[#lost + 1] = lane
      lost[#lost + 1] = id
    end
  end
  at = at + 1 + count
end
return lost
