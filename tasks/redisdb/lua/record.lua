-- record.lua: what the scripts on a job record share. It is put in front of each
-- of them; KEYS[1] is always the job hash.
--
-- The job hash holds a header (v, tenant, queue, open, request_id, fp, created, end,
-- keep, tasks, total, max_failures, started, finished, rev, stop, cancel, retry), one counter per
-- item state under the state's name, and one field per item under its number. stop
-- is the error code that no further attempt begins for. An item is JSON with
-- short names, to stay within Redis's compact encoding (64 bytes a field), and
-- without what is not yet known:
--   i instance   s state (first letter; w = retrying)   d delivery, if not 1
--   a attempts   f failures (retry budget used)   g without an answer   l lost
--   b first attempt began, r the running one, e ended (ms since created)
--   t token of the running attempt   k driver key, while an outcome is in doubt
--   p checkpoint   y waiting for a busy instance since (ms since created)
--   c error code   m error message
--   h attempts that did not succeed, the last 20: {n number, b began, e ended,
--     o outcome: a state's letter or 'l' for lost, c code, m message}

local NAMES = {p = 'pending', r = 'running', w = 'retrying', s = 'succeeded',
               f = 'failed', u = 'unknown', c = 'cancelled'}
local FINAL = {s = true, f = true, u = true, c = true}

-- Redis's clock is the only one in the record: workers' clocks may disagree.
local function clock()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

local function since_created(now)
  return now - tonumber(redis.call('HGET', KEYS[1], 'created'))
end

local function load(n)
  local raw = redis.call('HGET', KEYS[1], n)
  return raw and cjson.decode(raw)
end

local function put(n, item, state)
  local was = item.s
  if was ~= state then
    redis.call('HINCRBY', KEYS[1], NAMES[was], -1)
    redis.call('HINCRBY', KEYS[1], NAMES[state], 1)
    item.s = state
  end
  redis.call('HSET', KEYS[1], n, cjson.encode(item))
end

-- stop ends every item that waits, because of the given code, and lets none begin
-- any more. What is running ends by itself.
local function stop(code, message, now)
  redis.call('HSET', KEYS[1], 'stop', code)
  local at = since_created(now)
  for n = 0, tonumber(redis.call('HGET', KEYS[1], 'total')) - 1 do
    local item = load(n)
    if item.s == 'p' or item.s == 'w' then
      item.e = at
      if item.k then
        put(n, item, 'u') -- an earlier call is in doubt: it cannot be called cancelled
      else
        item.c, item.m, item.y = code, message, nil
        put(n, item, 'c')
      end
    end
  end
end

-- settle counts a revision and closes the job if its last item is final. Returns 1
-- if it is.
local function settle(now)
  redis.call('HINCRBY', KEYS[1], 'rev', 1)
  for _, count in ipairs(redis.call('HMGET', KEYS[1], 'pending', 'running', 'retrying')) do
    if count and tonumber(count) > 0 then return 0 end
  end
  redis.call('HSET', KEYS[1], 'finished', now)
  redis.call('EXPIRE', KEYS[1], redis.call('HGET', KEYS[1], 'keep'))
  return 1
end

-- save stores item n in the given state, and stops the job if too many have failed
-- now. Returns 1 when that made the job final.
local function save(n, item, state, now)
  put(n, item, state)
  local limit = tonumber(redis.call('HGET', KEYS[1], 'max_failures') or 0)
  if state == 'f' and limit > 0 and tonumber(redis.call('HGET', KEYS[1], 'failed')) >= limit
     and not redis.call('HGET', KEYS[1], 'stop') then
    stop('RESET.1005', 'stopped after too many failures in the job', now)
  end
  return settle(now)
end

-- remember adds the attempt that ends now to the item's history.
local function remember(item, at, outcome, code, message)
  item.h = item.h or {}
  if #item.h == 20 then table.remove(item.h, 1) end
  item.h[#item.h + 1] = {n = item.a, b = item.r, e = at, o = outcome, c = code, m = message}
end

-- touch writes without changing anything, for a command that was sent twice: see
-- commit.go.
local function touch() redis.call('HINCRBY', KEYS[1], 'rev', 0) end

-- refusal says why a delivery may not go on with an item, or nil.
local function refusal(item, delivery, instance)
  if not item then return 'gone' end
  if item.i ~= instance then return 'instance' end
  if FINAL[item.s] then return 'final' end
  if (item.d or 1) ~= tonumber(delivery) then return 'delivery' end
end
