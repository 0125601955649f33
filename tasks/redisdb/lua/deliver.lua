-- deliver.lua: number a new delivery of an open item, because the task of its
-- current one is lost, and close the attempt of a worker that died with it. The caller
-- enqueues it; the old one is refused from now on.
-- needs: record, remember, lost
-- KEYS[1] job hash
-- ARGV[1] item number   ARGV[2] delivery that is lost   ARGV[3] instance
-- ARGV[4] token of a running attempt whose worker is dead, or ''
-- ARGV[5] ms to leave the item alone if so
-- ARGV[6] '=' and the driver that is to have it now ('' for the default one), or '' for the same
-- returns {'', new delivery, ms until the item may begin}
--         {reason}: gone, instance, final, delivery, moved (another driver is to have it, and a call
--         of the one before is in doubt)
--         {'running', token, lost}: an attempt runs, and ARGV[4] is not its token
local item = open(ARGV[1])
local reason = refusal(item, ARGV[2], ARGV[3])
if reason then return {reason} end
local under_way = running(item, ARGV[4])
if under_way then return under_way end
local at = since(clock())
if item.s == 'r' then
  lose(item, at)
  item.s, item.t, item.x, item.r = 'w', nil, nil, nil
  if item.k then item.c, item.m = WORKER_LOST, 'the worker was lost' end
  if ARGV[5] ~= '0' then item.w = at + ARGV[5] end
end
if ARGV[6] ~= '' and (item.k or item.q) then return {'moved'} end
if ARGV[6] == '=' then
  item.dr = nil
elseif ARGV[6] ~= '' then
  item.dr = string.sub(ARGV[6], 2)
end
item.d = (item.d or 1) + 1
item.z = nil -- a late begin has the number of before
store(ARGV[1], item)
return {'', item.d, math.max(0, (item.w or 0) - at)}
