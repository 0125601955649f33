-- finish.lua: end a running attempt, or give one up whose begin was not answered. Only the
-- holder of its token can. Run by many.lua.
-- needs: brake, record, remember, busy, stop
-- KEYS[1] job hash   KEYS[2] lock of the instance, if it is to be released here
-- ARGV[1] item number   ARGV[2] token   ARGV[3] new state: s, w, f or u
-- ARGV[4] error code    ARGV[5] error message
-- ARGV[6] '1' counts against the retry budget
-- ARGV[7] '1' a call's outcome is in doubt: keep driver key and checkpoint; 'x' if one was
--         before this attempt
-- ARGV[8] '1' the instance was busy   ARGV[9] '1' the call had no answer
-- ARGV[10] the lock's value if it is to be released
-- ARGV[11] how many items may fail before the rest is stopped, besides what the job says; 0 = all
-- ARGV[12] ms until the next try is due, 0 = none that is known
-- ARGV[13] '' or, to give up, the delivery: if the attempt has not begun, it never will
-- ARGV[14] what was seen of the instance, or ''
-- ARGV[15] the steps of the attempt, or ''
-- returns {1, or 2 if a call stays in doubt, ms the item has been waiting for a busy instance, the item's state, when it
--          ended (ms), 1 if the job is final}: a stopped job has no other attempt, so w becomes u if the call is
--          in doubt, f if it failed, c if it came to nothing. If the job was stopped because
--          of this, there follow the items that are cancelled by that, and those unknown
--         {0} the attempt was closed or replaced; nothing is changed
brake()
local function unlock()
  if KEYS[2] and ARGV[10] ~= '' and redis.call('GET', KEYS[2]) == ARGV[10] then redis.call('DEL', KEYS[2]) end
end
if ARGV[13] == '' then unlock() end
local item = open(ARGV[1])
if not item or item.s ~= 'r' or item.t ~= ARGV[2] then
  if ARGV[13] ~= '' and not refusal(item, ARGV[13], item and item.i) then
    item.z = item.z or {}
    if #item.z == 8 then table.remove(item.z, 1) end
    item.z[#item.z + 1] = ARGV[2]
    store(ARGV[1], item)
  end
  return {0}
end
local now = clock()
local at = since(now)
local state = ARGV[3]
local in_doubt = ARGV[7] == '1' or ARGV[7] == 'x' and (item.x or 0) % 4 == 1
if ARGV[13] ~= '' and not in_doubt then unlock() end
local came_to_nothing = false
if state == 'w' and stopped then
  came_to_nothing = ARGV[6] ~= '1' and not in_doubt and ARGV[9] ~= '1'
  state = in_doubt and 'u' or came_to_nothing and 'c' or 'f'
end
if state ~= 's' then
  remember(item, at, state, ARGV[4] ~= '' and ARGV[4] or nil, ARGV[5] ~= '' and string.sub(ARGV[5], 1, 200) or nil,
           ARGV[15] ~= '' and ARGV[15] or nil)
elseif item.h or ARGV[14] ~= '' then
  item.at, item.wk, item.st = item.r, worker(item), ARGV[15] ~= '' and ARGV[15] or nil
end
item.t, item.x, item.r = nil, nil, nil
if ARGV[6] == '1' then item.f = (item.f or 0) + 1 end
if ARGV[9] == '1' then item.g = (item.g or 0) + 1 end
if not in_doubt then item.k, item.p = nil, nil end
local waited = 0
if ARGV[8] == '1' then waited = busy(item, at) else item.u, item.v = nil, nil end
item.c = ARGV[4] ~= '' and ARGV[4] or nil
item.m = ARGV[5] ~= '' and ARGV[5] or nil
item.o = ARGV[14] ~= '' and ARGV[14] or nil
if came_to_nothing then
  item.c, item.u, item.v = stopped, nil, nil
  item.m = stopped == CANCELLED and 'cancelled' or 'stopped after too many failures in the job'
end
if state == 'w' then
  item.s = 'w'
  if ARGV[12] ~= '0' then item.w = at + ARGV[12] end
  store(ARGV[1], item)
  return {in_doubt and 2 or 1, waited, 'w', now, 0}
end
item.e = at
return {in_doubt and 2 or 1, waited, state, now, finish(ARGV[1], item, state, now, tonumber(ARGV[11]))}
