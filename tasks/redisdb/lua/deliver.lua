-- deliver.lua: number a new delivery of an open item, because the task of its
-- current one is lost. The caller enqueues it; the old one is refused from now on.
-- KEYS[1] job hash
-- ARGV[1] item number   ARGV[2] delivery that is lost   ARGV[3] instance
-- returns {'', new delivery, attempts lost before, 1 if an attempt was running}
--         {reason}: gone, instance, final, delivery
local item = open(ARGV[1])
local reason = refusal(item, ARGV[2], ARGV[3])
if reason then return {reason} end
item.d = (item.d or 1) + 1
store(ARGV[1], item)
return {'', item.d, item.l or 0, item.s == 'r' and 1 or 0}
