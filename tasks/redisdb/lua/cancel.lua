-- cancel.lua: take back what has not begun. Running attempts end by themselves and
-- are not repeated.
-- KEYS[1] job hash   ARGV[1] token of this request
-- returns 1 done, also if it was before; 0 the job is final; -1 there is no such job
local header = redis.call('HMGET', KEYS[1], 'created', 'finished', 'stop', 'cancel')
if not header[1] then return -1 end
if header[4] == ARGV[1] then -- the same command, sent twice
  touch()
  return 1
end
if header[2] then return 0 end
if header[3] ~= 'RESET.1003' then
  local now = clock()
  redis.call('HSET', KEYS[1], 'cancel', ARGV[1])
  stop('RESET.1003', 'cancelled', now)
  settle(now)
end
return 1
