-- lead.lua: become or stay the one that sweeps.
-- KEYS[1] lock   ARGV[1] token of the process   ARGV[2] time to live (ms)
-- returns 1 this process leads, 0 another one does
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
