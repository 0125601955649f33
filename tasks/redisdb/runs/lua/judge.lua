-- judge.lua: keep what a principal decides about a run that waits for approval.
-- needs: brake, changed
-- KEYS[1] run
-- ARGV[1] principal   ARGV[2] 'approved' or 'rejected'   ARGV[3] comment
-- ARGV[4] hash of the list that the decision is about, '' = whatever it is
-- ARGV[5] event of the decision   ARGV[6] event of the end of the run, if it is rejected
-- returns 'done', 'gone', the state in which nothing can be decided, or why this principal cannot: 'own', 'again', 'list'
local run = redis.call('HMGET', KEYS[1], 'state', 'approvals', 'approvers', 'approval_until', 'principal', 'list', 'cancel')
if not run[1] then return 'gone' end
if run[1] ~= 'waiting' or run[7] == '1' then return run[1] end
if not run[3] or run[3] == '' then return 'without' end
if tonumber(run[2] or 0) >= tonumber(run[3]) then return 'approved' end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if now >= tonumber(run[4]) then return 'expired' end
if ARGV[4] ~= '' and ARGV[4] ~= run[6] then return 'list' end
if ARGV[2] == 'approved' and run[5] == ARGV[1] then return 'own' end
if redis.call('HEXISTS', KEYS[1], 'd:' .. ARGV[1]) == 1 then return 'again' end
if ARGV[2] == 'rejected' then brake() end -- a run is rejected while Redis is full, too
redis.call('HSET', KEYS[1], 'd:' .. ARGV[1], string.format('%.0f', now) .. ' ' .. ARGV[2] .. ' ' .. ARGV[3])
changed(ARGV[5])
if ARGV[2] == 'rejected' then
  redis.call('HSET', KEYS[1], 'state', 'rejected', 'finished', string.format('%.0f', now))
  changed(ARGV[6])
else
  redis.call('HINCRBY', KEYS[1], 'approvals', 1)
end
return 'done'
