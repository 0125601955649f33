-- use.lua: use something of a second factor, once. It may be the way to the brake.
-- needs: brake
-- KEYS[1] what was used   ARGV[1] ID of the second factor   ARGV[2] 'step' or 'code'
-- ARGV[3] the step of time, which may only grow, or a hash   ARGV[4] random, of this use
-- returns 1, also when it is sent again, or 0 if it was used before
brake()
if redis.call('HGET', KEYS[1], 'of') ~= ARGV[1] then -- that of another one
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'of', ARGV[1])
end
if ARGV[2] == 'code' then
  redis.call('HSETNX', KEYS[1], 'code:' .. ARGV[3], ARGV[4])
  return redis.call('HGET', KEYS[1], 'code:' .. ARGV[3]) == ARGV[4] and 1 or 0
end
local used = redis.call('HMGET', KEYS[1], 'step', 'by')
if used[1] and tonumber(used[1]) >= tonumber(ARGV[3]) then
  return used[1] == ARGV[3] and used[2] == ARGV[4] and 1 or 0
end
redis.call('HSET', KEYS[1], 'step', ARGV[3], 'by', ARGV[4])
return 1
