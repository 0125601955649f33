-- record.lua: what the scripts on a job record share. It is put in front of each
-- of them; KEYS[1] is always the job hash.
--
-- The job hash holds a header (v, tenant, queue, open, request_id, created, end,
-- keep, total, started, finished, rev), one counter per item state under the
-- state's name, and one field per item under its number. An item is JSON with
-- short names, to stay within Redis's compact encoding (64 bytes a field), and
-- without what is not yet known:
--   i instance   s state (first letter; w = retrying)   d delivery, if not 1
--   a attempts   f failures (retry budget used)   l attempts lost
--   b first attempt began, e ended (both: ms since created)
--   t token of the running attempt   k driver key, while an outcome is in doubt
--   p checkpoint   y waiting for a busy instance since (ms since created)
--   c error code   m error message

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

-- save stores item n in the given state and keeps counters and revision right.
-- Returns 1 when that made the job final.
local function save(n, item, state, now)
  local was = item.s
  if was ~= state then
    redis.call('HINCRBY', KEYS[1], NAMES[was], -1)
    redis.call('HINCRBY', KEYS[1], NAMES[state], 1)
    item.s = state
  end
  redis.call('HSET', KEYS[1], n, cjson.encode(item))
  redis.call('HINCRBY', KEYS[1], 'rev', 1)
  if FINAL[was] or not FINAL[state] then return 0 end
  for _, count in ipairs(redis.call('HMGET', KEYS[1], 'pending', 'running', 'retrying')) do
    if count and tonumber(count) > 0 then return 0 end
  end
  redis.call('HSET', KEYS[1], 'finished', now)
  redis.call('EXPIRE', KEYS[1], redis.call('HGET', KEYS[1], 'keep'))
  return 1
end

-- refusal says why a delivery may not go on with an item, or nil.
local function refusal(item, delivery, instance)
  if not item then return 'gone' end
  if item.i ~= instance then return 'instance' end
  if FINAL[item.s] then return 'final' end
  if (item.d or 1) ~= tonumber(delivery) then return 'delivery' end
end
