-- Reads the clock of the server that has a stream: in a cluster each node has one of its own.
-- KEYS    a stream
-- ARGV    nothing
-- Returns the server's time in ms
local time = redis.call('TIME')
return time[1] * 1000 + math.floor(time[2] / 1000)
