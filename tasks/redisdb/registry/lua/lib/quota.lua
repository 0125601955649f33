-- quota.lua: for the scripts that count what a tenant did in the last hour. A hash has
-- a count for each minute (of Unix time). The minute that began an hour ago still counts
-- in full: never more than the limit in any hour.

local time = redis.call('TIME')
local now = tonumber(time[1])
local minute = math.floor(now / 60)

-- used returns the sum of a hash and drops what is older. What was counted in minutes that
-- are yet to come was so before Redis's clock was set back: it counts for an hour from now.
local function used(key)
  local all, sum, old, ahead = redis.call('HGETALL', key), 0, {}, 0
  for i = 1, #all, 2 do
    local m = tonumber(all[i])
    if m < minute - 60 or m > minute then old[#old + 1] = all[i] end
    if m > minute then ahead = ahead + all[i + 1] end
    if m >= minute - 60 then sum = sum + all[i + 1] end
  end
  if #old > 0 then redis.call('HDEL', key, unpack(old)) end
  if ahead > 0 then redis.call('HINCRBY', key, minute, ahead) end
  return sum
end

-- wait returns in how many seconds so many are no longer counted, or an hour.
local function wait(key, many)
  for m = minute - 60, minute do
    many = many - (redis.call('HGET', key, m) or 0)
    if many <= 0 then return (m + 61) * 60 - now end
  end
  return 3600
end

local function count(key, many)
  redis.call('HINCRBY', key, minute, many)
  redis.call('EXPIRE', key, 7200)
end
