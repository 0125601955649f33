-- create.lua: create a job record. This write is the commit point of a submit.
-- KEYS[1]  job hash
-- ARGV[1]  when the job was listed as open (ms, Redis's clock)
-- ARGV[2]  how long that listing may be trusted (ms)
-- ARGV[3]  time for the items to end (ms)
-- ARGV[4]  retention after the job is final (s)
-- ARGV[5]  tenant   ARGV[6] queue   ARGV[7] '1' = unregistered instances allowed
-- ARGV[8]  request ID   ARGV[9] fingerprint of the request
-- ARGV[10] how many items may fail before the rest is stopped; 0 = all
-- ARGV[11] how long asynq keeps finished tasks (s)
-- ARGV[12…] instances, in order
-- returns  created (ms), also for a job that exists and has the same fingerprint:
--          the same request, or a first sending of this command whose answer was
--          lost; 0 when the listing is too old, and nothing is stored; -1 when
--          the job exists and has another fingerprint
local now = tonumber(ARGV[1]) -- created when listed: the tenant's index has that time
if open() then
  if redis.call('HGET', KEYS[1], 'fp') ~= ARGV[9] then return -1 end
  touch()
  return job.created
end
if clock() - now > tonumber(ARGV[2]) then return 0 end
job = {created = now, finish_by = tonumber(ARGV[3]), keep = ARGV[4], max_failures = ARGV[10],
       rev = 1, p = #ARGV - 11, r = 0, w = 0, s = 0, f = 0, u = 0, c = 0}
for n = 12, #ARGV do write(n - 12, {s = 'p', i = ARGV[n]}) end
redis.call('HSET', KEYS[1], 'head', head(), 'counts', counts(), 'v', 2, 'tenant', ARGV[5], 'queue', ARGV[6],
           'open', ARGV[7], 'request_id', ARGV[8], 'fp', ARGV[9], 'tasks', ARGV[11], unpack(writes))
return now
