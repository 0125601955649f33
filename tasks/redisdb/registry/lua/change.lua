-- change.lua: change an operator who is still what was seen.
-- KEYS[1] operators   ARGV[1] name   ARGV[2] the operator as seen, in JSON   ARGV[3] as it shall be
-- returns 1, also when it is sent again, or 0 if the operator is another by now, or is no more
local is = redis.call('HGET', KEYS[1], ARGV[1])
if is == ARGV[3] then return 1 end
if is ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
