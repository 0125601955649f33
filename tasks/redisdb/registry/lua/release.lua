-- release.lua: correct how many open instances jobs of a tenant have.
-- KEYS[1] held (see accept.lua)
-- ARGV    of each job: its ID, what was read of it, how many instances are open now
for i = 1, #ARGV, 3 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
    local before, since = string.match(ARGV[i + 1], '^(%d+) (%d+)$')
    if ARGV[i + 2] == '0' then
      redis.call('HDEL', KEYS[1], ARGV[i])
    else
      redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2] .. ' ' .. since)
    end
    redis.call('HINCRBY', KEYS[1], '', ARGV[i + 2] - before)
  end
end
return 0
