-- Removes consumers that have been idle for long and have no pending entries. One step checks and removes, because a removal
-- loses the pending entries: none may arrive between the two.
-- KEYS    the lanes' streams
-- ARGV    group, smallest idle time in ms
-- Returns how many were removed
local removed = 0
for lane = 1, #KEYS do
  local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[lane], ARGV[1])
  if not consumers.err then -- no group, nothing to remove
    for _, facts in ipairs(consumers) do
      local about = {}
      for i = 1, #facts, 2 do
        about[facts[i]] = facts[i + 1]
      end
      if about['pending'] == 0 and about['idle'] >= tonumber(ARGV[2]) then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[lane], ARGV[1], about['name'])
        removed = removed + 1
      end
    end
  end
end
return removed
