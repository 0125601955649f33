-- ended.lua: a job has no open instances any more.
-- KEYS[1] held (see accept.lua)   ARGV[1] job   ARGV[2] when it ended (s)
-- returns 1 it does not count any more, 0 it did not, or was accepted again since
local counted = redis.call('HGET', KEYS[1], ARGV[1])
if not counted then return 0 end
local many, since = string.match(counted, '^(%d+) (%d+)$')
if tonumber(since) > tonumber(ARGV[2]) then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HINCRBY', KEYS[1], '', -many)
return 1
