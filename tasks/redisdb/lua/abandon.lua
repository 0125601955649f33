-- abandon.lua: end an item without an attempt: failed, or unknown when an
-- earlier call is in doubt.
-- KEYS[1] job hash
-- ARGV[1] item number   ARGV[2] delivery   ARGV[3] instance
-- ARGV[4] error code    ARGV[5] error message
-- ARGV[6] how many items may fail before the rest is stopped, besides what the job says; 0 = all
-- returns {'', the item's state, when it ended (ms), 1 if the job is final}; then as finish.lua
--         {reason}: gone, instance, final, delivery
local item = open(ARGV[1])
local reason = refusal(item, ARGV[2], ARGV[3])
if reason then return {reason} end
local now = clock()
item.e = now - created
if item.s == 'r' then remember(item, item.e, 'l') end
item.t, item.x, item.y, item.r = nil, nil, nil, nil
item.c, item.m = ARGV[4], ARGV[5]
local state = item.k and 'u' or 'f'
return {'', state, now, finish(ARGV[1], item, state, now, tonumber(ARGV[6]))}
