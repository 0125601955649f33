-- stop.lua: for the scripts that end items; it follows record.lua.

-- stop ends every item that waits, because of the given code, and lets none begin
-- any more. What is running ends by itself. Returns how many items are cancelled by this,
-- and how many unknown.
local function stop(code, message, now)
  local cancelled, unknown = 0, 0
  redis.call('HSET', KEYS[1], 'stop', code)
  for n = 0, redis.call('HGET', KEYS[1], 'total') - 1 do
    local item = open(n)
    if item.s == 'p' or item.s == 'w' then
      item.e = since(now)
      left = left - 1
      if item.k or item.q then
        item.s = 'u' -- an earlier call is in doubt: it cannot be called cancelled
        item.c, item.m = item.c or code, item.m or message
        unknown = unknown + 1
      else
        item.s, item.c, item.m = 'c', code, message
        cancelled = cancelled + 1
      end
      item.u, item.v, item.w, item.z = nil, nil, nil, nil
      store(n, item)
    end
  end
  return cancelled, unknown
end

-- finish stores item n in a final state, and stops the job if too many have failed
-- now: as many as its own limit or the given one, 0 = none. Returns 1 when that made the
-- job final, then what stop returns, if the job was stopped.
local function finish(n, item, state, now, given)
  item.s, item.z = state, nil
  left = left - 1
  store(n, item)
  if state ~= 's' and left > 0 then
    local run = redis.call('HGET', KEYS[1], 'run')
    if run then redis.call('PUBLISH', 'reset:runs', run) end -- a hint: too many of it may have failed by now
  end
  if state ~= 'f' or stopped then return close_if_ended() end
  local limit = math.min(tonumber(redis.call('HGET', KEYS[1], 'max_failures') or 1e9), given > 0 and given or 1e9)
  if limit < 1e9 then
    local failed = 0
    for other = 0, redis.call('HGET', KEYS[1], 'total') - 1 do
      if string.sub(redis.call('HGET', KEYS[1], other), 1, 1) == 'f' then failed = failed + 1 end
    end
    if failed >= limit then
      local cancelled, unknown = stop(TOO_MANY_FAILURES, 'stopped after too many failures in the job', now)
      return close_if_ended(), cancelled, unknown
    end
  end
  return close_if_ended()
end
