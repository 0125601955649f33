-- lock.lua: take an instance for an item, if it is still the tenant's.
-- KEYS[1] lock   KEYS[2] fleet entry of the same instance
-- ARGV[1] item ID   ARGV[2] token of the attempt   ARGV[3] time to live (ms)
-- ARGV[4] tenant    ARGV[5] '1' = an instance that is not registered is allowed
-- ARGV[6] '1' = take it over from another attempt at the same item
-- returns 1 taken, 2 another attempt at the same item has it, 0 another item has
--         it, -1 protected or not the tenant's
--
-- The value is "<item> <token>", because only the attempt that has the lock may
-- release it. Two attempts at one item can meet here: one whose worker was
-- frozen and its successor, or a late delivery and the current one. Which of
-- them may go on is for the record to say, so the lock changes hands (ARGV[6])
-- only after begin; before it, neither can take the lock from the other.
local fleet = redis.call('HMGET', KEYS[2], 'tenant', 'protected')
if fleet[1] then
  if fleet[1] ~= ARGV[4] or fleet[2] == '1' then return -1 end
elseif ARGV[5] ~= '1' then
  return -1
end
local mine = ARGV[1] .. ' ' .. ARGV[2]
local held = redis.call('GET', KEYS[1])
if held and held ~= mine then
  if string.sub(held, 1, #ARGV[1] + 1) ~= ARGV[1] .. ' ' then return 0 end
  if ARGV[6] ~= '1' then return 2 end
end
redis.call('SET', KEYS[1], mine, 'PX', ARGV[3])
return 1
