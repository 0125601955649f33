-- reschedule.lua: move an open job's next sweep, or drop it from the index, unless
-- someone has moved it since it was read.
-- KEYS[1] open index
-- ARGV[1] job   ARGV[2] the score that was read   ARGV[3] new score, or '' to drop it
-- returns 1 done, 0 the score is another one by now
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or tonumber(score) ~= tonumber(ARGV[2]) then return 0 end
if ARGV[3] == '' then
  redis.call('ZREM', KEYS[1], ARGV[1])
else
  redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
end
return 1
