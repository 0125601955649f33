-- beat.lua: show that a worker process is alive, also while Redis is full, which refuses SET and INCR as the first write.
-- KEYS[1] how often it has shown that   KEYS[2] its key; without it this is a primary that only counts
-- ARGV[1] for how long the number is kept (ms)   ARGV[2] for how long the process counts as alive (ms)
-- returns the number: one that the process has seen before says that Redis has forgotten something
redis.call('PEXPIRE', KEYS[1], ARGV[1])
if KEYS[2] and redis.call('PEXPIRE', KEYS[2], ARGV[2]) == 0 then redis.call('SET', KEYS[2], '', 'PX', ARGV[2]) end
local beats = redis.call('INCR', KEYS[1])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return beats
