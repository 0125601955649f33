-- changed.lua: for the scripts that change the record of a run.

-- changed ends a change of the record KEYS[1]. The event that endpoints are to be told of, '' = none, has the number of
-- the change, and stays in the record until it is told: whoever dies, a runner finds it there.
local function changed(event)
  local rev = redis.call('HINCRBY', KEYS[1], 'rev', 1)
  if event ~= '' then redis.call('HSET', KEYS[1], EVENT .. rev, event) end
end
