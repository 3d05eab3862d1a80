-- Creates the group at 0 on every lane that lacks it, with the stream if there is none. At 0 because `$` would skip what was
-- published before. A full server refuses XGROUP CREATE, even for a group that exists; but a script may add once it has
-- written (see ack.lua), so this one starts with a deletion.
-- KEYS    the lanes' streams
-- ARGV    group
-- Returns how many lanes lacked it
local created = 0
for lane = 1, #KEYS do
  redis.call('XDEL', KEYS[lane], '0-1') -- no entry has this id
  local reply = redis.pcall('XGROUP', 'CREATE', KEYS[lane], ARGV[1], '0', 'MKSTREAM')
  if not reply.err then
    created = created + 1
  elseif not string.find(reply.err, 'BUSYGROUP', 1, true) then
    return reply
  end
end
return created
