-- begin.lua: lock the instance of an item and begin an attempt at it, or neither. Run by
-- many.lua.
-- KEYS[1] job hash
-- KEYS[2] lock   KEYS[3] fleet entry of the instance; without them it is locked already
-- ARGV[1] item number   ARGV[2] delivery   ARGV[3] instance
-- ARGV[4] token of the attempt   ARGV[5] driver key, used if none is in doubt;
--         neither has a space or a brace
-- ARGV[6] item ID   ARGV[7] time to live of the lock (ms)
-- ARGV[8] tenant    ARGV[9] '1' = an instance that is not registered is allowed
-- returns {'', attempts, failures, lost, driver key, checkpoint, 1 if ambiguous,
--          attempts without an answer}
--         {reason}: busy, not allowed, gone, instance, final, delivery, late, stopped
--         {'early', ms until it may begin}
if KEYS[2] then
  local reason = barred(KEYS[2], KEYS[3], ARGV[6], ARGV[4], ARGV[8], ARGV[9])
  if reason then return {reason} end
end
local item = open(ARGV[1])
local reason = refusal(item, ARGV[2], ARGV[3])
if reason then return {reason} end

-- The same token again is the same command sent twice by the client library:
-- answer what was answered, count nothing. It writes all the same: see commit.go.
if item.s == 'r' and item.t == ARGV[4] then
  redis.call('HSET', KEYS[1], 'rev', rev)
else
  local now = clock()
  local at = now - created
  if stopped then return {'stopped'} end
  if now >= finish_by then return {'late'} end
  if not_before and now < not_before then return {'early', not_before - now} end
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
  item.s = 'r'
  store(ARGV[1], item)
end
if KEYS[2] then redis.call('SET', KEYS[2], ARGV[6] .. ' ' .. ARGV[4], 'PX', ARGV[7]) end
return {'', item.a, item.f or 0, item.l or 0, item.k, item.p or '', item.x or 0, item.g or 0}
