-- claim.lua: take the open jobs that are due for as long as it takes to sweep them. Whoever
-- sweeps one sets its next time, or drops it; those of a process that dies are due again
-- when the claim is over.
-- KEYS[1] open index
-- ARGV[1] how many at the most   ARGV[2] how long the claim lasts (ms)
-- returns {now (ms), the jobs}, the longest waiting first; their score is now + ARGV[2]
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
for _, job in ipairs(due) do
  redis.call('ZADD', KEYS[1], now + ARGV[2], job)
end
return {now, due}
