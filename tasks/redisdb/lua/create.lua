-- create.lua: create a job record. This write is the commit point of a submit.
-- KEYS[1]  job hash
-- ARGV[1]  when the job was listed as open (ms, Redis's clock)
-- ARGV[2]  how long that listing may be trusted (ms)
-- ARGV[3]  time for the items to end (ms)
-- ARGV[4]  retention after the job is final (s)
-- ARGV[5]  tenant   ARGV[6] queue   ARGV[7] '1' = unregistered instances allowed
-- ARGV[8]  request ID
-- ARGV[9…] instances, in order
-- returns  created (ms); 0 when the listing is too old, and nothing is stored
--
-- A job that exists already was created by a first sending of this very
-- command whose answer was lost: job IDs are random.
local created = redis.call('HGET', KEYS[1], 'created')
if created then return tonumber(created) end
local now = clock()
if now - tonumber(ARGV[1]) > tonumber(ARGV[2]) then return 0 end
local total = #ARGV - 8
local fields = {'v', 1, 'created', now, 'end', now + tonumber(ARGV[3]), 'keep', ARGV[4],
                'tenant', ARGV[5], 'queue', ARGV[6], 'open', ARGV[7],
                'request_id', ARGV[8], 'total', total, 'pending', total, 'rev', 1}
for n = 1, total do
  fields[#fields + 1] = n - 1
  fields[#fields + 1] = cjson.encode({i = ARGV[8 + n], s = 'p'})
end
redis.call('HSET', KEYS[1], unpack(fields))
return now
