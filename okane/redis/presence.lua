-- Writes the heartbeat of a process, and removes processes whose last one is too old.
-- Deletes before it adds: a script may add at maxmemory once it has written.
-- KEYS    the hash of processes
-- ARGV    address, role and name, ms after which a process without heartbeat is removed
-- Returns how many processes are on the list
local key, address, note, forget_ms = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HDEL', key, address)
local all = redis.call('HGETALL', key)
for at = 1, #all, 2 do
  local seen_ms = tonumber(string.match(all[at + 1], '^%d+'))
  if seen_ms + forget_ms <= now_ms then
    redis.call('HDEL', key, all[at])
  end
end
redis.call('HSET', key, address, string.format('%.0f %s', now_ms, note))
redis.call('PEXPIRE', key, forget_ms)
return redis.call('HLEN', key)
