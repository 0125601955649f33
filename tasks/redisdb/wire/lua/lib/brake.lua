-- brake.lua: for the scripts that stop or remove something.

-- brake comes before every other write of a script, and makes it one that a full Redis does
-- not refuse. Redis refuses a script at its first write, if that could need memory, and at
-- no later one, or the script would be left half done. So the first write is one that needs
-- none: it drops a field of the hash KEYS[1] that is never there. What follows is a few bytes.
local braked
local function brake()
  if braked then return end -- for another item
  redis.call('HDEL', KEYS[1], 'brake')
  braked = true
end
