-- protect.lua: protect a registered instance, or end that.
-- needs: brake
-- KEYS[1] fleet entry   ARGV[1] '1' protect, '0' end it
-- returns 1 done, 0 the instance is not registered
brake()
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'protected', ARGV[1])
return 1
