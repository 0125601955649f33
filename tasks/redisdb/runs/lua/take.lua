-- take.lua: take the next parts of a run that goes on. Their jobs are made afterwards.
-- KEYS[1] run
-- ARGV[1] the next part, as the caller knows it   ARGV[2] wave of the parts   ARGV[3] now (ms)
-- ARGV[4…] how many instances each has
-- returns 1 taken, 0 the run is paused, cancelled, or further
local run = redis.call('HMGET', KEYS[1], 'state', 'cancel', 'next', 'started', 'round_at', 'wave', 'wave_at')
if run[1] ~= 'running' or run[2] == '1' or run[3] ~= ARGV[1] then return 0 end
for n = 4, #ARGV do
  redis.call('HSET', KEYS[1], 'o:' .. (ARGV[1] + n - 4), ARGV[n])
end
redis.call('HSET', KEYS[1], 'next', ARGV[1] + #ARGV - 3, 'wave', ARGV[2])
if not run[4] then redis.call('HSET', KEYS[1], 'started', ARGV[3]) end
if not run[7] or run[6] ~= ARGV[2] then redis.call('HSET', KEYS[1], 'wave_at', ARGV[3]) end
if not run[5] then redis.call('HSET', KEYS[1], 'round_at', ARGV[3]) end
redis.call('HINCRBY', KEYS[1], 'rev', 1)
return 1
