-- hold.lua: say why items of an open job wait, or that nothing holds them any more.
-- needs: record
-- KEYS[1] job hash
-- ARGV[1] the reason, or ''
-- returns 1 done, 0 there is no such record, or it has ended, or says so already
open('')
if not rev or left == 0 then return 0 end
local since, reason = string.match(redis.call('HGET', KEYS[1], 'held') or '', '^(%d+) (.*)$')
if (reason or '') == ARGV[1] then return 0 end
if ARGV[1] == '' then
  redis.call('HDEL', KEYS[1], 'held')
else
  redis.call('HSET', KEYS[1], 'held', string.format('%d %s', clock(), ARGV[1]))
end
redis.call('HSET', KEYS[1], 'rev', rev + 1)
return 1
