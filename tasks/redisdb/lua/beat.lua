-- beat.lua: show that a worker process is alive, also while Redis is full, which refuses SET and INCR as the first write.
-- KEYS[1] its key   KEYS[2] how often it has shown that
-- ARGV[1] for how long (ms)   ARGV[2] for how long the number is kept (ms)
-- returns the number: one that the process has seen before says that Redis has forgotten something
if redis.call('PEXPIRE', KEYS[1], ARGV[1]) == 0 then redis.call('SET', KEYS[1], '', 'PX', ARGV[1]) end
local beats = redis.call('INCR', KEYS[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return beats
