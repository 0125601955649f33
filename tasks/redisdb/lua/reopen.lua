-- reopen.lua: open the items of a final job that did not succeed for another try,
-- each with a new delivery. Their history stays.
-- KEYS[1] job hash
-- ARGV[1] token of this request   ARGV[2] time for the items to end (ms)
-- returns 1 done, 0 the job is not final or every item succeeded, -1 no such job
if not open() then return -1 end
if redis.call('HGET', KEYS[1], 'retry') == ARGV[1] then -- the same command, sent twice
  touch()
  return 1
end
if not job.finished then return 0 end
local now = clock()
local reopened = 0
for n = 0, total() - 1 do
  local item = load(n)
  if item.s ~= 's' then
    put(n, {i = item.i, s = item.s, a = item.a, b = item.b, h = item.h, d = (item.d or 1) + 1, live = item.live}, 'p')
    reopened = reopened + 1
  end
end
if reopened == 0 then return 0 end
job.finished, job.stop, job.finish_by = nil, nil, now - job.created + tonumber(ARGV[2])
commit(now)
redis.call('HSET', KEYS[1], 'retry', ARGV[1])
redis.call('PERSIST', KEYS[1])
return 1
