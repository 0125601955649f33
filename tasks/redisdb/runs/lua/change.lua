-- change.lua: change the record of a run, if it is in a state in which this can be done.
-- needs: brake
-- KEYS[1] run
-- ARGV[1] states that it may be in, each between two spaces   ARGV[2] '1' = not if it is cancelled
-- ARGV[3…] field and value, by turns; '' takes the field out
-- returns the state it was in, or '' if there is no such run; nothing is changed in another state
local run = redis.call('HMGET', KEYS[1], 'state', 'cancel')
if not run[1] then return '' end
if ARGV[2] == '1' and run[2] == '1' then return 'cancelling' end
if not string.find(ARGV[1], ' ' .. run[1] .. ' ', 1, true) then return run[1] end
brake() -- a run is paused and cancelled while Redis is full, too
for n = 3, #ARGV, 2 do
  if ARGV[n + 1] == '' then
    redis.call('HDEL', KEYS[1], ARGV[n])
  else
    redis.call('HSET', KEYS[1], ARGV[n], ARGV[n + 1])
  end
end
redis.call('HINCRBY', KEYS[1], 'rev', 1)
return run[1]
