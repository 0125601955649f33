-- retry.lua: begin another round of a run that has ended, with parts that were written before.
-- KEYS[1] run   KEYS[2] list   KEYS[3] the parts of the new round, for this request alone   KEYS[4] its parts with failures
-- ARGV[1] rev as the caller knows it   ARGV[2] how many parts the list has   ARGV[3] how many there are of the new round
-- ARGV[4] when the run was listed as open (ms)   ARGV[5] how long that may be trusted (ms)
-- ARGV[6…] field and value, by turns
-- returns 'done', 'gone', 'moved', or 'late' = the parts are gone, or it took too long
local rev = redis.call('HGET', KEYS[1], 'rev')
if not rev then return 'gone' end
if rev ~= ARGV[1] then return 'moved' end
if redis.call('LLEN', KEYS[2]) ~= tonumber(ARGV[2]) then return 'gone' end
if redis.call('LLEN', KEYS[3]) ~= tonumber(ARGV[3]) then return 'late' end
if redis.call('TIME')[1] * 1000 - ARGV[4] > tonumber(ARGV[5]) then return 'late' end
for from = 0, ARGV[3] - 1, 100 do
  redis.call('RPUSH', KEYS[2], unpack(redis.call('LRANGE', KEYS[3], from, from + 99)))
end
redis.call('DEL', KEYS[3])
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if string.sub(field, 1, 2) == 'c:' then redis.call('HDEL', KEYS[1], field) end
end
redis.call('HDEL', KEYS[1], 'finished', 'held', 'cancel', 'soak_until', 'canary_passed', 'round_at', 'wave_at')
redis.call('HSET', KEYS[1], 'next', ARGV[2], 'parts', ARGV[2] + ARGV[3], 'wave', 0, unpack(ARGV, 6))
redis.call('PERSIST', KEYS[1])
redis.call('PERSIST', KEYS[2])
redis.call('PERSIST', KEYS[4])
redis.call('HINCRBY', KEYS[1], 'rev', 1)
return 'done'
