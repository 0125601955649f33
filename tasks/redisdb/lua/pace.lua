-- pace.lua: let so many requests per second through, after the generic cell rate
-- algorithm: one every 1/limit s on average, and up to a second's worth at once.
-- KEYS[1] when the next request would be due if all came evenly (µs)
-- ARGV[1] limit
-- returns ms until the request may come, 0 = now
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local due = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now) + 1000000 / ARGV[1]
if due - now > 1000000 then return math.ceil((due - now) / 1000) - 1000 end
redis.call('SET', KEYS[1], string.format('%.0f', due), 'PX', math.ceil((due - now) / 1000))
return 0
