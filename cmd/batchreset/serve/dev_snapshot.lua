-- All that a Redis has, at one moment: for each key its name, its type, for how
-- many milliseconds it still lives (-1 = for ever) and its value as the command for reading it gives it.
local readers = {
  string = function(key) return {redis.call('GET', key)} end,
  hash = function(key) return redis.call('HGETALL', key) end,
  list = function(key) return redis.call('LRANGE', key, 0, -1) end,
  set = function(key) return redis.call('SMEMBERS', key) end,
  zset = function(key) return redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') end,
  stream = function(key) return redis.call('XRANGE', key, '-', '+') end,
}
local all = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind = redis.call('TYPE', key).ok
  local read = readers[kind]
  if not read then
    return redis.error_reply('ERR the key ' .. key .. ' has the type ' .. kind .. ', which dev does not keep')
  end
  all[#all + 1] = {key, kind, redis.call('PTTL', key), read(key)}
end
return all
