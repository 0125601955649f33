-- rotate.lua: give a webhook endpoint a new secret.
-- KEYS[1] endpoint   ARGV[1] new secret   ARGV[2] until when the old one signs, too (ms)
-- returns 1 done, 0 there is no such endpoint
local old = redis.call('HGET', KEYS[1], 'secret')
if not old then return 0 end
if old ~= ARGV[1] then -- else the same command, sent twice
  redis.call('HSET', KEYS[1], 'secret', ARGV[1], 'old_secret', old, 'old_until', ARGV[2])
end
return 1
