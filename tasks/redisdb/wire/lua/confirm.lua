-- confirm.lua: write again what is there, so that who waits for replicas waits for all that
-- was written before.
-- needs: brake
-- KEYS[1] a hash   ARGV[1] a field of it
-- returns 1, or 0 if there is no such field
brake()
local value = redis.call('HGET', KEYS[1], ARGV[1])
if not value then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], value)
return 1
