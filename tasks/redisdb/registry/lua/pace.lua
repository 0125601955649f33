-- pace.lua: let so many requests per second through, after the generic cell rate
-- algorithm: one every 1/limit s on average, and up to a second's worth at once.
-- KEYS[1] when the next request would be due if all came evenly (µs)
-- KEYS[2] when that was written (µs)
-- ARGV[1] limit
-- ARGV[2] '' = may a request come? Else, of one that came, what it was worth besides, at
--         most 20 requests
-- returns ms until the request may come, 0 = now
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local each = 1000000 / ARGV[1]
local kept = redis.call('MGET', KEYS[1], KEYS[2])
local due, written = tonumber(kept[1] or 0), tonumber(kept[2] or 0)
-- If Redis's clock was set back since, that is no reason to wait longer.
local set_back = written > now
if set_back then due = due - (written - now) end
local furthest = now + 1000000 + 20 * each
if due > furthest then due, set_back = now + 1000000, true end -- an older version wrote it
due = math.max(due, now)

local function put(at)
  local ms = math.max(1, math.ceil((at - now) / 1000))
  redis.call('SET', KEYS[1], string.format('%.0f', at), 'PX', ms)
  redis.call('SET', KEYS[2], string.format('%.0f', now), 'PX', ms)
end

if ARGV[2] ~= '' then
  put(math.min(due + ARGV[2] * each, furthest))
  return 0
end
if due + each - now > 1000000 then
  if set_back then put(due) end
  return math.ceil((due + each - now) / 1000) - 1000
end
put(due + each)
return 0
