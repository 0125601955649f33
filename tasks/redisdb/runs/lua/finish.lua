-- finish.lua: end a run of which nothing is open any more.
-- KEYS[1] run   KEYS[2] list
-- ARGV[1] final state   ARGV[2] now (ms)   ARGV[3] retention (s)   ARGV[4] rev as the caller knows it
-- returns 1 ended, 0 the record is another by now
if redis.call('HGET', KEYS[1], 'rev') ~= ARGV[4] then return 0 end
redis.call('HSET', KEYS[1], 'state', ARGV[1], 'finished', ARGV[2])
redis.call('HDEL', KEYS[1], 'held')
redis.call('HINCRBY', KEYS[1], 'rev', 1)
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[3])
return 1
