-- reopen.lua: open those items of a final job that are in one of the given states for
-- another try, each with a new delivery. Their history stays, and so do all other items.
-- needs: record, stop
-- KEYS[1] job hash
-- ARGV[1] token of this request   ARGV[2] time for the items to end (ms)
-- ARGV[3] the letters of the states   ARGV[4]... error codes, of which the items have one; none: any
-- returns 1 done, 0 the job is not final or no item is in such a state, -1 no such job
open(0)
if not left then return -1 end
if redis.call('HGET', KEYS[1], 'retry') == ARGV[1] then -- the same command, sent twice
  redis.call('HSET', KEYS[1], 'rev', rev) -- see wire.Client.Commit
  return 1
end
if left > 0 then return 0 end
local codes = {}
for a = 4, #ARGV do codes[ARGV[a]] = true end
for n = 0, redis.call('HGET', KEYS[1], 'total') - 1 do
  local item = open(n)
  if string.find(ARGV[3], item.s, 1, true) and (not ARGV[4] or codes[item.c or '']) then
    left = left + 1
    -- A call in doubt may still be going on: see begin.lua.
    local doubt = (item.k or item.q) and 1 or nil
    store(n, {i = item.i, s = 'p', a = item.a, b = item.b, h = item.h, d = (item.d or 1) + 1, q = doubt})
  end
end
if left == 0 then return 0 end
local now = clock()
redis.call('HSET', KEYS[1], 'retry', ARGV[1], 'end', now + ARGV[2], 'again', now, 'stop', '')
redis.call('PERSIST', KEYS[1])
return 1
