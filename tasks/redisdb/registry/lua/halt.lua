-- halt.lua: halt a tenant, or end that. There are two halts, which hold side by side: the
-- operators' and the tenant's own.
-- needs: brake
-- KEYS[1] policies
-- ARGV[1] field of the operators' halt   ARGV[2] field of the tenant's own
-- ARGV[3] whose is meant: 'operator' or 'tenant'   ARGV[4] the halt (JSON), '' = end it
-- returns 1 done, 0 there is nothing to change
-- Workers of before know only the first field. Where the operators have no halt, it repeats
-- the tenant's own, marked, so that they hold, too.
brake()
local mark = '{"own":true,'

local theirs, own = redis.call('HGET', KEYS[1], ARGV[1]), redis.call('HGET', KEYS[1], ARGV[2])
if theirs and string.sub(theirs, 1, #mark) == mark then theirs = false end
if ARGV[3] == 'operator' then
  if not theirs and ARGV[4] == '' then return 0 end
  theirs = ARGV[4] ~= '' and ARGV[4]
else
  if not own == (ARGV[4] == '') then return 0 end -- the first reason stays
  own = ARGV[4] ~= '' and ARGV[4]
end
local function put(field, value)
  if value then redis.call('HSET', KEYS[1], field, value) else redis.call('HDEL', KEYS[1], field) end
end
put(ARGV[2], own)
put(ARGV[1], theirs or own and mark .. string.sub(own, 2))
return redis.call('HINCRBY', KEYS[1], '#', 1) and 1
