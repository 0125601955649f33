-- spend.lua: count a reset that is about to begin against its tenant's limit per hour,
-- or take that back.
-- needs: quota
-- KEYS[1] begun: counts by minute
-- ARGV[1] limit   ARGV[2] '' or the minute that it was counted in, to take it back
-- returns {s until it may begin, 0 = now; the minute}
local begun, limit = used(KEYS[1]), tonumber(ARGV[1])
if ARGV[2] ~= '' then
  local counted = math.min(ARGV[2], minute) -- see used
  if tonumber(redis.call('HGET', KEYS[1], counted) or 0) > 0 then redis.call('HINCRBY', KEYS[1], counted, -1) end
  return {0, counted}
end
if begun >= limit then return {wait(KEYS[1], begun + 1 - limit), minute} end
count(KEYS[1], 1)
return {0, minute}
