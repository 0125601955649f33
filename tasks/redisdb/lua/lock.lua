-- lock.lua: take an instance for an attempt, where begin.lua cannot.
-- needs: instance
-- KEYS[1] lock   KEYS[2] fleet entry of the same instance   KEYS[3] see drop.lua
-- ARGV[1] item ID   ARGV[2] token of the attempt   ARGV[3] time to live (ms)
-- ARGV[4] tenant    ARGV[5] '1' = an instance that is not registered is allowed
-- ARGV[6] '1' = take it over from another attempt at the same item
-- ARGV[7] driver of the delivery, or '' for the default one
-- ARGV[8] generation of the instance that the job is for, or ''
-- returns {'', token of another attempt at the same item that has it, or '', address, labels}
--         {reason}: busy, not allowed, reassigned, rerouted, given up
if redis.call('EXISTS', KEYS[3]) == 1 then return {'given up'} end
local reason, held, address, labels = barred(KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[4], ARGV[5], ARGV[7], ARGV[8])
if reason then return {reason} end
if held and ARGV[6] ~= '1' then return {'', held, address, labels} end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
return {'', '', address, labels}
