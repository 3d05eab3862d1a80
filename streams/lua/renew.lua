-- Renews the lease of entries that are still ours. The owner check is what a plain XCLAIM lacks: a worker that slept
-- through its lease would steal the entry back from whoever took it over.
-- KEYS    the lanes' streams
-- ARGV    group, consumer, then per lane a count and that many entry ids
-- Returns { lane (from 1), id, lane, id, ... } of those that are not ours any more
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
