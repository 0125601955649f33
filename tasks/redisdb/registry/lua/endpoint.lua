-- endpoint.lua: add a webhook endpoint.
-- KEYS[1] the tenant's endpoints   KEYS[2] endpoint
-- ARGV[1] its ID   ARGV[2] how many the tenant may have   ARGV[3..] its fields and values
-- returns 1 done, 0 the tenant has that many
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 0 and redis.call('SCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('SADD', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[2], unpack(ARGV, 3))
return 1
