-- order.lua: tell a worker process what to do, also while Redis is full, which refuses SET by itself.
-- KEYS[1] the order   ARGV[1] what, ARGV[2] for how long it is good unless the worker reports (ms)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
