-- wait.lua: note that an item waits for an instance that another item holds.
-- needs: record, busy
-- KEYS[1] job hash
-- ARGV[1] item number   ARGV[2] delivery   ARGV[3] instance
-- returns {'', ms the item has been waiting}
--         {reason}: gone, instance, final, delivery
local item = open(ARGV[1])
local reason = refusal(item, ARGV[2], ARGV[3])
if reason then return {reason} end
local waited = busy(item, since(clock()))
store(ARGV[1], item)
return {'', waited}
