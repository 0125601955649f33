-- loggedin.lua: note a log-in, and where its session is found. It may be the way to the brake.
-- needs: brake
-- KEYS[1] last log-ins by name, in JSON   KEYS[2] names by their time (ms)   KEYS[3] sessions of this name
-- by their end (ms)
-- ARGV[1] name      ARGV[2] the log-in    ARGV[3] its time   ARGV[4] older log-ins than this are forgotten
-- ARGV[5] session   ARGV[6] its end       ARGV[7] now        ARGV[8] how long a session lasts at most (ms)
brake()
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[4], 'LIMIT', 0, 100)) do
  redis.call('HDEL', KEYS[1], name)
  redis.call('ZREM', KEYS[2], name)
end
local last = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not last or tonumber(last) <= tonumber(ARGV[3]) then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
  redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
end
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', ARGV[7])
redis.call('ZADD', KEYS[3], ARGV[6], ARGV[5])
return redis.call('PEXPIRE', KEYS[3], ARGV[8])
