-- close.lua: count the instances of a part whose job has ended, once.
-- KEYS[1] run   KEYS[2] its parts with failures
-- ARGV[1] part   ARGV[2…5] succeeded, failed, unknown, cancelled
-- ARGV[6] how many error codes are counted apart   ARGV[7…] error code and count, by turns
-- returns 1 counted, 0 it was before
if redis.call('HDEL', KEYS[1], 'o:' .. ARGV[1]) == 0 then return 0 end
for n, field in ipairs({'succeeded', 'failed', 'unknown', 'cancelled'}) do
  redis.call('HINCRBY', KEYS[1], field, ARGV[n + 1])
end
local codes = tonumber(redis.call('HGET', KEYS[1], 'codes') or 0)
for n = 7, #ARGV, 2 do
  local field = 'c:' .. ARGV[n]
  if redis.call('HEXISTS', KEYS[1], field) == 1 then
    redis.call('HINCRBY', KEYS[1], field, ARGV[n + 1])
  elseif codes < tonumber(ARGV[6]) then
    redis.call('HSET', KEYS[1], field, ARGV[n + 1])
    codes = redis.call('HINCRBY', KEYS[1], 'codes', 1)
  end
end
if ARGV[3] ~= '0' or ARGV[4] ~= '0' then redis.call('ZADD', KEYS[2], ARGV[1], ARGV[1]) end
redis.call('HINCRBY', KEYS[1], 'rev', 1)
return 1
