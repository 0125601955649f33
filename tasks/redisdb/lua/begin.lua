-- begin.lua: begin an attempt at an item.
-- KEYS[1] job hash
-- ARGV[1] item number   ARGV[2] delivery   ARGV[3] instance
-- ARGV[4] token of the attempt   ARGV[5] driver key, used if none is in doubt
-- returns {'', attempts, failures, lost, driver key, checkpoint, 1 if ambiguous,
--          attempts without an answer}
--         {reason}: gone, instance, final, delivery, late, stopped
local item = load(ARGV[1])
local reason = refusal(item, ARGV[2], ARGV[3])
if reason then return {reason} end

-- The same token again is the same command sent twice by the client library:
-- answer what was answered, count nothing.
if item.s == 'r' and item.t == ARGV[4] then
  touch()
else
  local now = clock()
  if redis.call('HGET', KEYS[1], 'stop') then return {'stopped'} end
  if now >= tonumber(redis.call('HGET', KEYS[1], 'end')) then return {'late'} end
  local at = since_created(now)
  if item.s == 'r' then -- its worker died
    item.l = (item.l or 0) + 1
    remember(item, at, 'l')
  end
  item.a = (item.a or 0) + 1
  item.x = item.k and 1 or nil -- x: an earlier call is in doubt
  item.k = item.k or ARGV[5]
  item.t = ARGV[4]
  item.b = item.b or at
  item.r = at
  item.c, item.m = nil, nil
  redis.call('HSETNX', KEYS[1], 'started', now)
  save(ARGV[1], item, 'r', now)
end
return {'', item.a, item.f or 0, item.l or 0, item.k, item.p or '', item.x or 0, item.g or 0}
