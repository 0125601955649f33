-- spendwait.lua: look how long spend.lua would have a reset wait. Nothing is counted.
-- needs: quota
-- KEYS[1] begun: counts by minute
-- ARGV[1] limit
-- returns s until it may begin, 0 = now
local begun, limit = used(KEYS[1]), tonumber(ARGV[1])
if begun >= limit then return wait(KEYS[1], begun + 1 - limit) end
return 0
