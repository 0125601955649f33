-- register.lua: register an instance, or change its entry.
-- Nothing is done if the entry is not what the caller has seen: what ends a protection, takes an
-- instance from its tenant, or gives it another address, is in the audit trail before it is done.
-- KEYS[1] fleet entry
-- ARGV[1] tenant seen, '' if there was no entry   ARGV[2] rev seen, '' if it had none
-- ARGV[3…] field and value, by turns; '' takes the field out
-- returns 1 done, 0 the entry is another by now
local entry = redis.call('HMGET', KEYS[1], 'tenant', 'rev')
if (entry[1] or '') ~= ARGV[1] or (entry[2] or '') ~= ARGV[2] then return 0 end
for n = 3, #ARGV, 2 do
  if ARGV[n + 1] == '' then
    redis.call('HDEL', KEYS[1], ARGV[n])
  else
    redis.call('HSET', KEYS[1], ARGV[n], ARGV[n + 1])
  end
end
redis.call('HINCRBY', KEYS[1], 'rev', 1)
return 1
