-- finish.lua: end a run of which nothing is open any more.
-- needs: changed
-- KEYS[1] run
-- ARGV[1] final state   ARGV[2] now (ms)   ARGV[3] rev as the caller knows it   ARGV[4] event
-- returns 1 ended, 0 the record is another by now
if redis.call('HGET', KEYS[1], 'rev') ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], 'state', ARGV[1], 'finished', ARGV[2])
redis.call('HDEL', KEYS[1], 'held')
changed(ARGV[4])
return 1
