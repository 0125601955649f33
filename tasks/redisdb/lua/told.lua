-- told.lua: mark endings as told to the tenant's endpoints. It is no change that anybody
-- waits for, so the revision stays.
-- KEYS[1] job hash
-- ARGV pairs of a field ('told', or 'told:<n>' of item n) and the number of the ending
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
for i = 1, #ARGV, 2 do
  local before = tonumber(redis.call('HGET', KEYS[1], ARGV[i])) or 0
  if tonumber(ARGV[i + 1]) > before then redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
return 1
