-- session.lua: add a session of an operator. It may be the way to the brake.
-- needs: brake
-- KEYS[1] session   ARGV[1] time to live (ms)   ARGV[2..] its fields and values
brake()
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
return redis.call('PEXPIRE', KEYS[1], ARGV[1])
