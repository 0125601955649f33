-- reschedule.lua: say when a run is looked at next, unless somebody has said so since.
-- KEYS[1] the runs that have not ended, or a list of runs by creation time
-- ARGV[1] run   ARGV[2] time that was read (ms)   ARGV[3] next time (ms), '' = it has ended, or is to be forgotten
-- returns 1 done, 0 it has another time by now
local at = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not at or tonumber(at) ~= tonumber(ARGV[2]) then return 0 end
if ARGV[3] == '' then
  redis.call('ZREM', KEYS[1], ARGV[1])
else
  redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
end
return 1
