-- retire.lua: have what is kept of a run that has ended expire.
-- KEYS[1] run   KEYS[2] list   KEYS[3] its parts with failures
-- ARGV[1] rev as the caller knows it   ARGV[2] after how many seconds
-- returns 1 done, 0 the record is another by now: somebody may have retried the run
if redis.call('HGET', KEYS[1], 'rev') ~= ARGV[1] then return 0 end
redis.call('EXPIRE', KEYS[3], ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
