-- change.lua: change an operator who is still what was seen.
-- needs: admins
-- KEYS[1] operators   ARGV[1] name   ARGV[2] the operator as seen, in JSON   ARGV[3] as it shall be
-- ARGV[4] 1: even if that leaves no admin
-- returns 1, also when it is sent again; 0 if the operator is another by now, or is no more; -1 if no
-- admin would be left
local is = redis.call('HGET', KEYS[1], ARGV[1])
if is == ARGV[3] then return 1 end
if is ~= ARGV[2] then return 0 end
if ARGV[4] ~= '1' and not admin(ARGV[3]) and lastadmin(ARGV[1]) then return -1 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
