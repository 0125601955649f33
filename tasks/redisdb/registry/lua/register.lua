-- register.lua: register an instance, or change its entry, in those fields that are given.
-- Nothing is done if the entry is not what the caller has seen: what ends a protection, takes an
-- instance from its tenant, or gives it another address, is in the audit trail before it is done.
-- KEYS[1] fleet entry
-- ARGV[1] tenant, or '' to leave it   ARGV[2] '1' protected, '0' not, or '' to leave that
-- ARGV[3] tenant seen, '' if there was no entry   ARGV[4] '1' if it was seen protected
-- ARGV[5] '=' and the address, or '' to leave it   ARGV[6] '=' and the labels (JSON), or ''
-- ARGV[7] address seen   ARGV[8] '=' and the driver, or ''   ARGV[9] driver seen
-- returns 1 done, 0 the entry is another by now
local entry = redis.call('HMGET', KEYS[1], 'tenant', 'protected', 'address', 'driver')
if (entry[1] or '') ~= ARGV[3] or (entry[2] == '1') ~= (ARGV[4] == '1') or (entry[3] or '') ~= ARGV[7] or
  (entry[4] or '') ~= ARGV[9] then return 0 end
if ARGV[1] ~= '' then redis.call('HSET', KEYS[1], 'tenant', ARGV[1]) end
if ARGV[2] ~= '' or not entry[1] then redis.call('HSET', KEYS[1], 'protected', ARGV[2] == '1' and '1' or '0') end
for field, value in pairs({address = ARGV[5], labels = ARGV[6], driver = ARGV[8]}) do
  if value == '=' then
    redis.call('HDEL', KEYS[1], field)
  elseif value ~= '' then
    redis.call('HSET', KEYS[1], field, string.sub(value, 2))
  end
end
return 1
