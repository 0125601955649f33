-- wrong.lua: count a wrong signature, or forget those that were counted.
-- KEYS[1] count   ARGV[1] how long it is remembered after the last one (ms), '' = forget
-- returns the count
if ARGV[1] == '' then
  redis.call('DEL', KEYS[1])
  return 0
end
local n = redis.call('INCR', KEYS[1])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return n
