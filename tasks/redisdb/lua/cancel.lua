-- cancel.lua: take back what has not begun. Running attempts end by themselves and
-- are not repeated.
-- needs: brake, record, stop
-- KEYS[1] job hash   ARGV[1] token of this request
-- returns {1, items that are cancelled by this, items that are unknown}
--         {2} it is cancelled already   {0} the job is final   {-1} there is no such job
brake()
open(0)
if not left then return {-1} end
if redis.call('HGET', KEYS[1], 'cancel') == ARGV[1] then -- the same command, sent twice
  redis.call('HSET', KEYS[1], 'rev', rev) -- see wire.Client.Commit
  return {1, 0, 0}
end
if left == 0 then return {0} end
if stopped == CANCELLED then return {2} end
redis.call('HSET', KEYS[1], 'cancel', ARGV[1], 'rev', rev + 1)
local cancelled, unknown = stop(CANCELLED, 'cancelled', clock())
close_if_ended()
return {1, cancelled, unknown}
