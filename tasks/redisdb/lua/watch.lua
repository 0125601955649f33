-- watch.lua: become or stay the one that tells operators, and keep what they were told, also while Redis is full, which
-- refuses SET by itself.
-- KEYS[1] lock, KEYS[2] what was told   ARGV[1] token of the process, ARGV[2] time to live (ms), ARGV[3] what was told, or empty
-- returns {1, what was told} this process tells, {0} another one does
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return {0} end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if ARGV[3] ~= '' then redis.call('SET', KEYS[2], ARGV[3]) end
return {1, redis.call('GET', KEYS[2]) or ''}
