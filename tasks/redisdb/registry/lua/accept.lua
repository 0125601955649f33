-- accept.lua: count the instances of a job against its tenant's limits, or refuse it.
-- needs: quota
-- KEYS[1] accepted: counts by minute; only kept while there is a limit per hour
-- KEYS[2] held: job -> "<open instances> <accepted (s)>", '' -> their sum, '@' -> "0 <when all
--         may be counted anew (ms)>"; only kept while there is a limit of open instances
-- KEYS[3] direct: counts by minute of what belongs to no run; only kept while there is a limit for that
-- ARGV[1] job   ARGV[2] instances; 0 = only ask
-- ARGV[3] limit per hour   ARGV[4] limit of open instances; 0 = none
-- ARGV[5] '1' = even if the job was accepted just now (a retry)
-- ARGV[6] limit per hour of what belongs to no run, as this job; 0 = none
-- returns {what is over: '', 'hour', 'direct' or 'open', accepted in the last hour, open
--          instances, s until it may fit, Redis's time (ms), accepted in the last hour without a run}
-- What is held does not shrink when an instance ends but with its job, see ended.lua, and
-- when someone looks, see release.lua.
local ms = now * 1000 + math.floor(time[2] / 1000)
local many, per_hour, open_limit = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local accepted, open, before = per_hour > 0 and used(KEYS[1]) or 0, 0, 0
local direct_limit = tonumber(ARGV[6])
local direct = direct_limit > 0 and used(KEYS[3]) or 0
if open_limit > 0 then
  local held = redis.call('HMGET', KEYS[2], '', ARGV[1])
  open = math.max(0, tonumber(held[1] or 0))
  if many > 0 and held[2] then
    local n, since = string.match(held[2], '^(%d+) (%d+)$')
    if ARGV[5] ~= '1' and math.abs(now - since) < 60 then
      return {'', accepted, open, 0, ms, direct} -- the same submit, whose end nobody heard of
    end
    before = tonumber(n)
  end
end
if per_hour > 0 and accepted + many > per_hour then
  return {'hour', accepted, open, many > per_hour and 3600 or wait(KEYS[1], accepted + many - per_hour), ms, direct}
end
if direct_limit > 0 and direct + many > direct_limit then
  return {'direct', accepted, open, many > direct_limit and 3600 or wait(KEYS[3], direct + many - direct_limit), ms, direct}
end
if open_limit > 0 then
  if open - before + many > open_limit then return {'open', accepted, open, 10, ms, direct} end
  if many > 0 then
    redis.call('HSET', KEYS[2], ARGV[1], many .. ' ' .. now, '', open - before + many)
    redis.call('EXPIRE', KEYS[2], 30 * 24 * 3600) -- longer than a job is open
  end
end
if many > 0 and per_hour > 0 then count(KEYS[1], many) end
if many > 0 and direct_limit > 0 then count(KEYS[3], many) end
return {'', accepted, open, 0, ms, direct}
