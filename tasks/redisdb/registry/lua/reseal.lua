-- reseal.lua: put a secret in place of what was read.
-- KEYS[1] entry   ARGV[1] field   ARGV[2] what was read   ARGV[3] the new text
-- returns 1 done, 0 it is another one by now
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
