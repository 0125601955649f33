-- remove.lua: remove an operator.
-- needs: brake, admins
-- KEYS[1] operators   ARGV[1] name   ARGV[2] 1: even if that leaves no admin
-- returns 1, 0 if there is none, -1 if no admin would be left
if ARGV[2] ~= '1' and lastadmin(ARGV[1]) then return -1 end
brake()
return redis.call('HDEL', KEYS[1], ARGV[1])
