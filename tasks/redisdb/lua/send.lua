-- send.lua: the last look before a reset is sent, and the mark that it may have been. Run
-- by many.lua.
-- needs: record, instance
-- KEYS[1] job hash
-- KEYS[2] lock   KEYS[3] fleet entry of the instance; without them look.lua has looked
-- ARGV[1] item number   ARGV[2] token of the attempt   ARGV[3] item ID
-- ARGV[4] tenant   ARGV[5] '1' = an instance that is not registered is allowed
-- ARGV[6] driver and   ARGV[7] address that the attempt has   ARGV[8] see begin.lua's ARGV[15]
-- returns {''}
--         {reason}: token, stopped, late, busy, not allowed, reassigned, rerouted, moved
local item = open(ARGV[1])
if not item or item.s ~= 'r' or item.t ~= ARGV[2] then return {'token'} end
if stopped then return {'stopped'} end
if clock() >= finish_by then return {'late'} end
if KEYS[2] then
  local reason = lapsed(KEYS[2], KEYS[3], ARGV[3], ARGV[2], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8])
  if reason then return {reason} end
end
if item.x and item.x >= 4 then
  item.x = item.x > 4 and item.x - 4 or nil
  store(ARGV[1], item)
else -- sent twice by the client library, or asked again; it writes all the same: see wire.Client.Commit
  redis.call('HSET', KEYS[1], 'rev', rev)
end
return {''}
