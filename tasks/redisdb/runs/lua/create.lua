-- create.lua: make the record of a run, whose list was written before. This write is the commit point.
-- KEYS[1] run   KEYS[2] list   KEYS[3] list as it was written, for this request alone
-- ARGV[1] fingerprint   ARGV[2] how many parts the list has   ARGV[3] when the run was listed as open (ms)
-- ARGV[4] how long that may be trusted (ms): a runner takes what is not made in time off the list
-- ARGV[5…] field and value, by turns
-- returns 1 made, 2 it exists and is the same request, -1 it exists and is another one, 0 the list is gone, or
-- it took too long
local existing = redis.call('HMGET', KEYS[1], 'fp', 'rev')
if existing[1] then
  redis.call('DEL', KEYS[3])
  if existing[1] ~= ARGV[1] then return -1 end
  redis.call('HSET', KEYS[1], 'rev', existing[2]) -- see wire.Client.Commit
  return 2
end
if redis.call('LLEN', KEYS[3]) ~= tonumber(ARGV[2]) then return 0 end
if redis.call('TIME')[1] * 1000 - ARGV[3] > tonumber(ARGV[4]) then return 0 end
redis.call('RENAME', KEYS[3], KEYS[2])
redis.call('PERSIST', KEYS[2])
redis.call('HSET', KEYS[1], 'fp', ARGV[1], 'rev', 1, 'parts', ARGV[2], 'next', 0, unpack(ARGV, 5))
return 1
