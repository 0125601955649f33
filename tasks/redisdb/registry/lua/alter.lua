-- alter.lua: change fields of a webhook endpoint that there is.
-- KEYS[1] endpoint   ARGV[1..] fields and values
-- returns 1 done, 0 there is no such endpoint
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV))
return 1
