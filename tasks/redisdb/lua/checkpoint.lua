-- checkpoint.lua: keep what a driver needs to resume a running attempt.
-- needs: brake, record
-- KEYS[1] job hash
-- ARGV[1] item number   ARGV[2] token of the attempt   ARGV[3] checkpoint
-- returns 1 kept, 0 the attempt was closed or replaced
brake()
local item = open(ARGV[1])
if not item or item.s ~= 'r' or item.t ~= ARGV[2] then return 0 end
item.p = ARGV[3]
store(ARGV[1], item)
return 1
