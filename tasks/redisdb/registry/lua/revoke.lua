-- revoke.lua: end a token.
-- needs: brake
-- KEYS[1] token   ARGV[1] how long it is remembered (ms)
-- returns 1 done, 0 it was revoked before, -1 there is no such token
brake()
if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
if redis.call('HEXISTS', KEYS[1], 'revoked') == 1 then return 0 end
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'revoked', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
