-- beat.lua: show that a worker process is alive, also while Redis is full, which refuses SET.
-- KEYS[1] its key   ARGV[1] for how long (ms)
if redis.call('PEXPIRE', KEYS[1], ARGV[1]) == 0 then redis.call('SET', KEYS[1], '', 'PX', ARGV[1]) end
return 1
