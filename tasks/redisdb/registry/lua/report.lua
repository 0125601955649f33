-- report.lua: note what came of sending a notice, and disable an endpoint that wants no
-- more, or that has taken nothing for too long.
-- KEYS[1] endpoint
-- ARGV[1] event ID   ARGV[2] topic   ARGV[3] status, 0 if there was no answer
-- ARGV[4] error, empty if the notice was taken   ARGV[5] '1' the endpoint wants no more
-- ARGV[6] how long it may take nothing (ms)   ARGV[7] how long the answer took (ms)
-- returns 1 if the endpoint is disabled by this
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('HSET', KEYS[1], 'at', now, 'event', ARGV[1], 'topic', ARGV[2], 'status', ARGV[3], 'error', ARGV[4], 'took', ARGV[7])
if ARGV[4] == '' then
  redis.call('HDEL', KEYS[1], 'failing')
  return 0
end
redis.call('HSETNX', KEYS[1], 'failing', now)
if redis.call('HEXISTS', KEYS[1], 'disabled') == 1 then return 0 end
local reason
if ARGV[5] == '1' then
  reason = 'the endpoint answered 410 Gone'
elseif now - redis.call('HGET', KEYS[1], 'failing') >= tonumber(ARGV[6]) then
  reason = 'nothing but failures for ' .. math.floor(ARGV[6] / 86400000) .. ' days'
else
  return 0
end
redis.call('HSET', KEYS[1], 'disabled', now, 'reason', reason)
return 1
