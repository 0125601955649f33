-- unlock.lua: release an instance, if this attempt still has it.
-- KEYS[1] lock   ARGV[1] item ID   ARGV[2] token of the attempt
-- returns 1 released, 0 it was not held by this attempt
if redis.call('GET', KEYS[1]) ~= ARGV[1] .. ' ' .. ARGV[2] then return 0 end
return redis.call('DEL', KEYS[1])
