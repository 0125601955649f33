-- cancel.lua: take back what has not begun. Running attempts end by themselves and
-- are not repeated.
-- KEYS[1] job hash   ARGV[1] token of this request
-- returns 1 done, also if it was before; 0 the job is final; -1 there is no such job
if not open() then return -1 end
if redis.call('HGET', KEYS[1], 'cancel') == ARGV[1] then -- the same command, sent twice
  touch()
  return 1
end
if job.finished then return 0 end
if job.stop ~= 'RESET.1003' then
  local now = clock()
  stop('RESET.1003', 'cancelled', now)
  commit(now)
  redis.call('HSET', KEYS[1], 'cancel', ARGV[1])
end
return 1
