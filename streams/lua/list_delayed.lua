-- Lists delayed messages, the next due first. Changes nothing.
-- KEYS    the delayed set
-- ARGV    lowest due time in ms, how many of that time to pass by, how many to return at most, bytes of each body
-- Returns { server time in ms, then for each: due time in ms, lane, attempt, body }; lane and attempt are empty for a member
--         that another program wrote
local time = redis.call('TIME')
local found = redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', ARGV[2], ARGV[3])
local listed = { time[1] * 1000 + math.floor(time[2] / 1000) }
for at = 1, #found, 2 do
  local readable, message = pcall(cmsgpack.unpack, found[at])
  local lane, attempt, body = '', '', found[at]
  if readable and type(message) == 'table' and type(message[3]) == 'table' then
    lane, attempt, body = tostring(message[2]), '1', ''
    for f = 1, #message[3] - 1, 2 do
      if message[3][f] == 'b' then body = tostring(message[3][f + 1]) end
      if message[3][f] == 'a' then attempt = tostring(message[3][f + 1]) end
    end
  end
  listed[#listed + 1] = string.format('%.0f', tonumber(found[at + 1]))
  listed[#listed + 1] = lane
  listed[#listed + 1] = attempt
  listed[#listed + 1] = string.sub(body, 1, tonumber(ARGV[4]))
end
return listed
