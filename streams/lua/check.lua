-- Checks that entries can be added now, and adds none: the server refuses the id 0-0 after it has checked rights, memory,
-- role and disk.
-- KEYS    the lanes' streams
-- ARGV    nothing
-- Returns the number of lanes, or the first error
local lanes = #KEYS
for lane = 1, lanes do
  local reply = redis.pcall('XADD', KEYS[lane], '0-0', 'b', '')
  if not string.find(reply.err, '0-0', 1, true) then
    return reply
  end
end
return lanes
