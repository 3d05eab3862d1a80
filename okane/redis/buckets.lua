-- Takes tokens out of buckets that fill evenly. A bucket is kept as the moment at which it will be full, by the server's
-- clock.
-- KEYS    the buckets
-- ARGV    for each: microseconds until the next token, tokens in a full bucket, tokens wanted
-- Returns for each: tokens taken, tokens left, microseconds until the next one (0 if one is left), until it is full
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local answers = {}
for at, key in ipairs(KEYS) do
  local interval_us, burst, wanted = tonumber(ARGV[3 * at - 2]), tonumber(ARGV[3 * at - 1]), tonumber(ARGV[3 * at])
  local whole_us = burst * interval_us
  -- A clock that was set back must not keep a bucket empty for longer than it takes to fill.
  local full_us = math.min(math.max(tonumber(redis.call('GET', key) or now_us), now_us), now_us + whole_us)
  local there = math.floor((now_us + whole_us - full_us) / interval_us + 0.000001)
  local taken = math.min(there, wanted)
  if taken > 0 then
    full_us = full_us + taken * interval_us
    redis.call('SET', key, string.format('%.0f', full_us), 'PX', math.ceil((full_us - now_us) / 1000))
  end
  local left = there - taken
  local next_us = 0
  if left == 0 then
    next_us = math.max(full_us - whole_us + interval_us - now_us, 1)
  end
  answers[at] = { taken, left, math.ceil(next_us), math.ceil(full_us - now_us) }
end
return answers
