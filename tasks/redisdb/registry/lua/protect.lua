-- protect.lua: protect a registered instance, or end that. A protection is not made shorter:
-- who wants that ends it first.
-- needs: brake
-- KEYS[1] fleet entry
-- ARGV[1] '1' protect, '0' end it   ARGV[2] until when (ms), '' = until somebody ends it
-- ARGV[3] who and why (JSON)
-- returns 1 done, 2 it is protected for longer than that already, 0 it is not registered
brake()
local entry = redis.call('HMGET', KEYS[1], 'tenant', 'protected', 'protected_until')
if not entry[1] then return 0 end
if ARGV[1] == '1' then
  if entry[2] == '1' and ARGV[2] ~= '' and (not entry[3] or tonumber(entry[3]) > tonumber(ARGV[2])) then return 2 end
  redis.call('HSET', KEYS[1], 'protected', '1', 'protection', ARGV[3])
else
  redis.call('HSET', KEYS[1], 'protected', '0')
  redis.call('HDEL', KEYS[1], 'protection')
end
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], 'protected_until')
else
  redis.call('HSET', KEYS[1], 'protected_until', ARGV[2])
end
redis.call('HINCRBY', KEYS[1], 'rev', 1)
return 1
