-- Puts dead letters back into their lanes as new messages; their attempts start again at one.
-- Each comes back for the group that gave it up (field `g`), or for all if that group no longer exists.
-- KEYS    the lanes' streams, then the dead-letter stream
-- ARGV    the number of lanes, the lanes' names in the order of their streams, then the dead letters' ids
-- Returns how many were put back
local lanes = tonumber(ARGV[1])
local dead = KEYS[lanes + 1]
local key_of = {}
for lane = 1, lanes do
  key_of[ARGV[lane + 1]] = KEYS[lane]
end

local function has_group(key, group)
  local groups = redis.pcall('XINFO', 'GROUPS', key)
  if groups.err then return not string.find(groups.err, 'no such key', 1, true) end
  for _, facts in ipairs(groups) do
    if facts[2] == group then return true end -- the name comes first
  end
  return false
end

local replayed = 0
for i = lanes + 2, #ARGV do
  local letter = redis.call('XRANGE', dead, ARGV[i], ARGV[i])[1]
  if letter then
    local parts, key, group = {}, KEYS[lanes], nil
    for f = 1, #letter[2], 2 do
      local name, value = letter[2][f], letter[2][f + 1]
      if name == 'lane' then
        key = key_of[value] or key
      elseif name == 'g' then
        group = value
      elseif name == 'b' or string.sub(name, 1, 2) == 'h:' then
        parts[#parts + 1] = name
        parts[#parts + 1] = value
      end
    end
    if #parts == 0 then parts = { 'b', '' } end
    if group and has_group(key, group) then
      parts[#parts + 1] = 'g'
      parts[#parts + 1] = group
    end
    redis.call('XDEL', dead, ARGV[i]) -- first, since a full server requires it (see ack.lua)
    local added = redis.pcall('XADD', key, '*', unpack(parts))
    if type(added) == 'table' and added.err then
      redis.call('XADD', dead, '*', unpack(letter[2]))
      return added
    end
    replayed = replayed + 1
  end
end
return replayed
