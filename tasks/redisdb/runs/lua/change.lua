-- change.lua: change the record of a run, if it is in a state in which this can be done.
-- needs: brake, changed
-- KEYS[1] run
-- ARGV[1] states that it may be in, each between two spaces   ARGV[2] '1' = also if it is being cancelled
-- ARGV[3] rev as the caller knows it, '0' = whatever it is
-- ARGV[4…] field and value, by turns; '' takes the field out, and the field EVENT is one of its own for each change
-- returns 'done', 'gone', 'moved' = another rev, or the state in which this cannot be done
local run = redis.call('HMGET', KEYS[1], 'state', 'cancel', 'rev')
if not run[1] then return 'gone' end
if ARGV[2] ~= '1' and run[2] == '1' then return 'cancelling' end
if not string.find(ARGV[1], ' ' .. run[1] .. ' ', 1, true) then return run[1] end
if ARGV[3] ~= '0' and ARGV[3] ~= run[3] then return 'moved' end
brake() -- a run is paused and cancelled while Redis is full, too
local event = ''
for n = 4, #ARGV, 2 do
  if ARGV[n] == EVENT then
    event = ARGV[n + 1]
  elseif ARGV[n + 1] == '' then
    redis.call('HDEL', KEYS[1], ARGV[n])
  else
    redis.call('HSET', KEYS[1], ARGV[n], ARGV[n + 1])
  end
end
changed(event)
return 'done'
