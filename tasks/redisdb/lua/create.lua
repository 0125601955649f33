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
-- ARGV[12] when the first attempt may begin (ms), or ''
-- ARGV[13] reason   ARGV[14] labels (JSON); each may be ''
-- ARGV[15] trace context, or ''
-- ARGV[16] who asks (see record.lua), or ''
-- ARGV[17] epoch (see record.lua)
-- ARGV[18] run of which it is a part, or ''
-- ARGV[19…] items, in order, as record.lua has them after their state
-- returns  {created (ms), queue, epoch}, also for a job that exists and has the same
--          fingerprint: the same request, or a first sending of this command whose
--          answer was lost; {0} when the listing is too old, and nothing is stored;
--          {-1} when the job exists and has another fingerprint
local existing = redis.call('HMGET', KEYS[1], 'created', 'fp', 'rev', 'queue', 'epoch')
if existing[1] then
  if existing[2] ~= ARGV[9] then return {-1} end
  redis.call('HSET', KEYS[1], 'rev', existing[3]) -- see wire.Client.Commit
  return {tonumber(existing[1]), existing[4], existing[5] or ''}
end
local time = redis.call('TIME')
local now = tonumber(ARGV[1]) -- created when listed: the tenant's index has that time
if time[1] * 1000 - now > tonumber(ARGV[2]) then return {0} end
local total = #ARGV - 18
local finish_by = now + ARGV[3]
if ARGV[12] ~= '' then finish_by = string.format('%d %s', ARGV[12] + ARGV[3], ARGV[12]) end
-- What every script looks up comes first: Redis looks through them in order.
local fields = {'rev', 1, 'left', total, 'stop', '', 'created', now, 'end', finish_by, 'epoch', ARGV[17], 'v', VERSION, 'keep', ARGV[4],
                'tenant', ARGV[5], 'queue', ARGV[6], 'open', ARGV[7], 'request_id', ARGV[8], 'fp', ARGV[9],
                'tasks', ARGV[11], 'total', total}
if ARGV[10] ~= '0' then
  fields[#fields + 1] = 'max_failures'
  fields[#fields + 1] = ARGV[10]
end
for n = 1, total do
  fields[#fields + 1] = n - 1
  fields[#fields + 1] = 'p    ' .. ARGV[18 + n]
end
for name, value in pairs({reason = ARGV[13], labels = ARGV[14], trace = ARGV[15], by = ARGV[16], run = ARGV[18]}) do
  if value ~= '' then
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
end
redis.call('HSET', KEYS[1], unpack(fields))
return {now, ARGV[6], ARGV[17]}
