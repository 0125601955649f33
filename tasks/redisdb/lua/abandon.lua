-- abandon.lua: end an item without an attempt: unknown when an earlier call is in doubt,
-- else failed, or cancelled if the job was stopped.
-- needs: record, remember, lost, stop
-- KEYS[1] job hash
-- ARGV[1] item number   ARGV[2] delivery   ARGV[3] instance
-- ARGV[4] error code    ARGV[5] error message
-- ARGV[6] how many items may fail before the rest is stopped, besides what the job says; 0 = all
-- ARGV[7] token of a running attempt whose worker is dead, or ''
-- returns {'', the item's state, when it ended (ms), 1 if the job is final}; then as finish.lua
--         {reason}: gone, instance, final, delivery
--         {'running', token, lost}: an attempt runs, and ARGV[7] is not its token
local item = open(ARGV[1])
local reason = refusal(item, ARGV[2], ARGV[3])
if reason then return {reason} end
local under_way = running(item, ARGV[7])
if under_way then return under_way end
local now = clock()
item.e = since(now)
if item.s == 'r' then lose(item, item.e) end
item.t, item.x, item.r, item.u, item.v, item.w = nil, nil, nil, nil, nil, nil
item.c, item.m = ARGV[4], ARGV[5]
local state = (item.k or item.q) and 'u' or stopped and 'c' or 'f'
if state == 'c' then item.c, item.m = stopped, 'the job was stopped' end
return {'', state, now, finish(ARGV[1], item, state, now, tonumber(ARGV[6]))}
