-- finish.lua: end a running attempt. Only the holder of its token can. Run by many.lua.
-- KEYS[1] job hash   KEYS[2] lock of the instance, if it is to be released here
-- ARGV[1] item number   ARGV[2] token   ARGV[3] new state: s, w, f or u
-- ARGV[4] error code    ARGV[5] error message
-- ARGV[6] '1' counts against the retry budget
-- ARGV[7] '1' a call's outcome is in doubt: keep driver key and checkpoint
-- ARGV[8] '1' the instance was busy   ARGV[9] '1' the call had no answer
-- ARGV[10] the lock's value if it is to be released
-- ARGV[11] how many items may fail before the rest is stopped, besides what the job says; 0 = all
-- returns {1, ms the item has been waiting for a busy instance, the item's state, when it
--          ended (ms), 1 if the job is final}: a stopped job has no other attempt, so w becomes u if the call is
--          in doubt, f if it failed, c if it came to nothing. If the job was stopped because
--          of this, there follow the items that are cancelled by that, and those unknown
--         {0} the attempt was closed or replaced; nothing is changed
if KEYS[2] and ARGV[10] ~= '' and redis.call('GET', KEYS[2]) == ARGV[10] then redis.call('DEL', KEYS[2]) end
local item = open(ARGV[1])
if not item or item.s ~= 'r' or item.t ~= ARGV[2] then return {0} end
local now = clock()
local at = now - created
local state = ARGV[3]
local came_to_nothing = false
if state == 'w' and stopped then
  came_to_nothing = ARGV[6] ~= '1' and ARGV[7] ~= '1' and ARGV[9] ~= '1'
  state = ARGV[7] == '1' and 'u' or came_to_nothing and 'c' or 'f'
end
if state ~= 's' then
  remember(item, at, state, ARGV[4] ~= '' and ARGV[4] or nil, ARGV[5] ~= '' and string.sub(ARGV[5], 1, 200) or nil)
end
item.t, item.x, item.r = nil, nil, nil
if ARGV[6] == '1' then item.f = (item.f or 0) + 1 end
if ARGV[9] == '1' then item.g = (item.g or 0) + 1 end
if ARGV[7] ~= '1' then item.k, item.p = nil, nil end
item.y = ARGV[8] == '1' and (item.y or at) or nil
item.c = ARGV[4] ~= '' and ARGV[4] or nil
item.m = ARGV[5] ~= '' and ARGV[5] or nil
if came_to_nothing then
  item.c, item.y = stopped, nil
  item.m = stopped == 'RESET.1003' and 'cancelled' or 'stopped after too many failures in the job'
end
local waited = item.y and at - item.y or 0
if state == 'w' then
  item.s = 'w'
  store(ARGV[1], item)
  return {1, waited, 'w', now, 0}
end
item.e = at
return {1, waited, state, now, finish(ARGV[1], item, state, now, tonumber(ARGV[11]))}
