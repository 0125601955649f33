-- finish.lua: end a running attempt. Only the holder of its token can.
-- KEYS[1] job hash
-- ARGV[1] item number   ARGV[2] token   ARGV[3] new state: s, w, f or u
-- ARGV[4] error code    ARGV[5] error message
-- ARGV[6] '1' counts against the retry budget
-- ARGV[7] '1' a call's outcome is in doubt: keep driver key and checkpoint
-- ARGV[8] '1' the instance was busy
-- returns {1, ms the item has been waiting for a busy instance, 1 if the job is final}
--         {0} the attempt was closed or replaced; nothing is changed
local item = load(ARGV[1])
if not item or item.s ~= 'r' or item.t ~= ARGV[2] then return {0} end
local now = clock()
local at = since_created(now)
item.t, item.x = nil, nil
if ARGV[6] == '1' then item.f = (item.f or 0) + 1 end
if ARGV[7] ~= '1' then item.k, item.p = nil, nil end
item.y = ARGV[8] == '1' and (item.y or at) or nil
item.c = ARGV[4] ~= '' and ARGV[4] or nil
item.m = ARGV[5] ~= '' and ARGV[5] or nil
if FINAL[ARGV[3]] then item.e = at end
local waited = item.y and at - item.y or 0
return {1, waited, save(ARGV[1], item, ARGV[3], now)}
