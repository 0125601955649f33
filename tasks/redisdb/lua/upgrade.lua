-- upgrade.lua: rewrite a record of version 1, which counted the items by state, and
-- kept them in JSON.
-- KEYS[1] job hash
-- returns 1 it is rewritten, 0 there is none of version 1
if redis.call('HGET', KEYS[1], 'v') ~= '1' then return 0 end
rev, left = redis.call('HGET', KEYS[1], 'rev'), 0
for n = 0, redis.call('HGET', KEYS[1], 'total') - 1 do
  local item = cjson.decode(redis.call('HGET', KEYS[1], n))
  if item.s == 'p' or item.s == 'r' or item.s == 'w' then left = left + 1 end
  store(n, item)
end
redis.call('HSET', KEYS[1], 'v', 2, 'stop', redis.call('HGET', KEYS[1], 'stop') or '')
redis.call('HDEL', KEYS[1], 'started', 'finished', 'pending', 'running', 'retrying', 'succeeded', 'failed', 'unknown', 'cancelled')
return 1
