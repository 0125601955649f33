-- begin.lua: lock the instance of an item and begin an attempt at it, or neither. Run by
-- many.lua.
-- needs: record, remember, lost, instance
-- KEYS[1] job hash
-- KEYS[2] lock   KEYS[3] fleet entry of the instance; without them it is locked already
-- ARGV[1] item number   ARGV[2] delivery   ARGV[3] instance
-- ARGV[4] token of the attempt   ARGV[5] driver key, used if none is in doubt;
--         neither has a space or a brace
-- ARGV[6] item ID   ARGV[7] time to live of the lock (ms)
-- ARGV[8] tenant    ARGV[9] '1' = an instance that is not registered is allowed
-- ARGV[10] epoch of the delivery, or ''
-- ARGV[11] token of a running attempt whose worker is dead, or ''
-- ARGV[12] without KEYS[2]: token of another attempt at the same item that has the lock, or ''
-- ARGV[13] without KEYS[2]: address of the instance, or ''
-- ARGV[14] driver of the delivery, or '' for the default one
-- ARGV[15] generation of the instance that the job is for, or ''
-- returns {'', attempts, failures, lost, driver key, checkpoint, 1 if ambiguous,
--          attempts without an answer, address, labels (JSON)}
--         {reason}: busy, not allowed, reassigned, rerouted, gone, instance, final, delivery, late, stopped,
--         given up, moved (a call is in doubt, and the instance has another address now)
--         {'early', ms until it may begin; 0 = when the lock has lapsed}
--         {'running', token, lost}: another attempt runs, and ARGV[11] is not its token; or one has the lock of which
--         the record knows nothing
local held, address, labels = ARGV[12] ~= '' and ARGV[12] or nil, ARGV[13], ''
if KEYS[2] then
  local reason
  reason, held, address, labels = barred(KEYS[2], KEYS[3], ARGV[6], ARGV[4], ARGV[8], ARGV[9], ARGV[14], ARGV[15])
  if reason then return {reason} end
end
local item = open(ARGV[1])
local reason = refusal(item, ARGV[2], ARGV[3], ARGV[10])
if reason then return {reason} end
for _, token in ipairs(item.z or {}) do
  if token == ARGV[4] then return {'given up'} end
end

-- The same token again is the same command sent twice by the client library:
-- answer what was answered, count nothing. It writes all the same: see wire.Client.Commit.
if item.s == 'r' and item.t == ARGV[4] then
  redis.call('HSET', KEYS[1], 'rev', rev)
else
  local under_way = running(item, ARGV[11])
  if under_way then return under_way end
  local now = clock()
  local at = since(now)
  if stopped then return {'stopped'} end
  if now >= finish_by then return {'late'} end
  if not_before and now < not_before then return {'early', not_before - now} end
  if item.w and at < item.w then return {'early', item.w - at} end
  -- A retry that somebody asked for while a call was in doubt waits for that call's lock.
  if item.q and held then return {'early', KEYS[2] and math.max(1, redis.call('PTTL', KEYS[2])) or 0} end
  if item.s == 'r' then
    lose(item, at)
  elseif held and held ~= ARGV[11] and not item.k then
    -- The record is of an earlier moment than the lock, or the end of that attempt could not be written in both.
    return {'running', held, item.l or 0}
  end
  -- The call that is in doubt went to the address that the instance had then.
  if item.k and (item.j or '') ~= address then return {'moved'} end
  item.a = (item.a or 0) + 1
  item.x = item.k and 5 or 4 -- see record.lua
  item.k = item.k or ARGV[5]
  item.t = ARGV[4]
  item.b = item.b or at
  item.r = at
  item.c, item.m, item.o, item.w, item.q = nil, nil, nil, nil, nil
  item.j = address ~= '' and address or nil
  item.s = 'r'
  store(ARGV[1], item)
end
if KEYS[2] then redis.call('SET', KEYS[2], ARGV[6] .. ' ' .. ARGV[4], 'PX', ARGV[7]) end
return {'', item.a, item.f or 0, item.l or 0, item.k, item.p or '', (item.x or 0) % 4, item.g or 0, address, labels}
