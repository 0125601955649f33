-- invite.lua: add a link that makes the first operator.
-- KEYS[1] operators   KEYS[2] links: hash of the secret, by when its time is over (ms)
-- ARGV[1] hash        ARGV[2] now   ARGV[3] when its time is over
-- returns 1, or 0 if there is an operator
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[2])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[3] - ARGV[2])
return 1
