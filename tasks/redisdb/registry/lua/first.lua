-- first.lua: make the first operator, by a link, which uses up every link.
-- KEYS[1] operators   KEYS[2] links   ARGV[1] hash of the link's secret   ARGV[2] now (ms)
-- ARGV[3] name        ARGV[4] operator in JSON
-- returns 1, also when it is sent again, or 0 if there is an operator, or no such link, or
-- its time is over
if redis.call('HGET', KEYS[1], ARGV[3]) == ARGV[4] then return 1 end
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local ends = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not ends or tonumber(ends) <= tonumber(ARGV[2]) then return 0 end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[1], ARGV[3], ARGV[4])
return 1
