-- add.lua: add an operator.
-- KEYS[1] operators   KEYS[2] links that make the first one, of which none is good from now on
-- ARGV[1] name        ARGV[2] operator in JSON
-- returns 1, also when it is sent again, or 0 if there is one with this name
local is = redis.call('HGET', KEYS[1], ARGV[1])
if is then return is == ARGV[2] and 1 or 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('DEL', KEYS[2]) -- or one would be good again once all operators are removed
return 1
