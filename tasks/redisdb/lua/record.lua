-- record.lua: what the scripts on a job record share. It is put in front of each
-- of them; KEYS[1] is always the job hash.
--
-- The hash holds what never changes (v, tenant, queue, open, request_id, fp, tasks),
-- who asked last (cancel, retry), and the rest in few fields, because each look into
-- a hash of this size costs as much as the work on what is found. No value is longer
-- than the 64 bytes of Redis's compact encoding in an ordinary life.
--   head    "created end keep max_failures started finished stop": created in ms;
--           end, started and finished in ms since then, if known; keep in s; stop is
--           the error code that no further attempt begins for
--   counts  "rev pending running retrying succeeded failed unknown cancelled"
--   <n>     item n: "s a b e i rest"
--             s state (first letter; w = retrying)   a attempts
--             b first attempt began, e ended (ms since created)   i instance
--           rest is JSON, without what is not there:
--             d delivery, if not 1   f failures (retry budget used)
--             g without an answer    l lost
--             y waiting for a busy instance since (ms since created)
--             c error code   m error message
--             h attempts that did not succeed, the last 20: {n number, b began,
--               e ended, o outcome: a state's letter or 'l' for lost, c code, m message}
--   <n>t    "t r x k p", while an attempt runs or the outcome of one is in doubt
--             t token of the running attempt   r it began (ms since created)
--             x 1 if an earlier call was in doubt   k driver key   p checkpoint

local STATES = {'p', 'r', 'w', 's', 'f', 'u', 'c'} -- in the order of counts
local FINAL = {s = true, f = true, u = true, c = true}
local REST = {'d', 'f', 'g', 'l', 'y', 'c', 'm', 'h'}

local job           -- the header, once open has read it
local writes = {}   -- field, value, … for commit
local drops = {}    -- fields for commit to delete
local saved = {}    -- numbers of the items among the writes

-- Redis's clock is the only one in the record: workers' clocks may disagree.
local function clock()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

local function num(s) return s ~= '' and tonumber(s) or nil end

local function text(n) return n and string.format('%d', n) or '' end

local function parse(raw, live)
  if not raw then return nil end
  local s, a, b, e, i, rest = string.match(raw, '^(%a) (%d*) (%d*) (%d*) (%S+) ?(.*)$')
  local item = rest ~= '' and cjson.decode(rest) or {}
  item.s, item.a, item.b, item.e, item.i = s, num(a), num(b), num(e), i
  if live then
    local t, r, x, k, p = string.match(live, '^(%S*) (%d*) (%d*) (%S*) ?(.*)$')
    item.t, item.r, item.x = t ~= '' and t or nil, num(r), num(x)
    item.k, item.p = k ~= '' and k or nil, p ~= '' and p or nil
    item.live = true
  end
  return item
end

-- write adds item n to what commit writes.
local function write(n, item)
  local raw = item.s .. ' ' .. text(item.a) .. ' ' .. text(item.b) .. ' ' .. text(item.e) .. ' ' .. item.i
  local rest
  for _, name in ipairs(REST) do
    if item[name] then
      rest = rest or {}
      rest[name] = item[name]
    end
  end
  if rest then raw = raw .. ' ' .. cjson.encode(rest) end
  writes[#writes + 1] = n
  writes[#writes + 1] = raw
  if item.t or item.k then
    local live = (item.t or '') .. ' ' .. text(item.r) .. ' ' .. text(item.x) .. ' ' .. (item.k or '')
    if item.p then live = live .. ' ' .. item.p end
    writes[#writes + 1] = n .. 't'
    writes[#writes + 1] = live
  elseif item.live then
    drops[#drops + 1] = n .. 't'
  end
  saved[tonumber(n)] = true
end

local function head()
  local h = string.format('%d %s %s %s %s %s', job.created, text(job.finish_by), job.keep, job.max_failures,
                          text(job.started), text(job.finished))
  return job.stop and h .. ' ' .. job.stop or h
end

local function counts()
  local c = {text(job.rev)}
  for i, s in ipairs(STATES) do c[i + 1] = text(job[s]) end
  return table.concat(c, ' ')
end

-- upgrade rewrites a record of version 1, which had a field for each part of head and
-- counts, and items in JSON. Returns false if there is no record.
local function upgrade()
  local h = redis.call('HMGET', KEYS[1], 'created', 'end', 'keep', 'max_failures', 'started', 'finished', 'stop',
                       'rev', 'total', 'pending', 'running', 'retrying', 'succeeded', 'failed', 'unknown', 'cancelled')
  if not h[1] then return false end
  job = {created = tonumber(h[1]), keep = h[3], max_failures = h[4] or '0', stop = h[7] or nil, rev = tonumber(h[8])}
  job.finish_by = tonumber(h[2]) - job.created
  job.started = h[5] and tonumber(h[5]) - job.created
  job.finished = h[6] and tonumber(h[6]) - job.created
  for i, s in ipairs(STATES) do job[s] = tonumber(h[9 + i] or 0) end
  for n = 0, tonumber(h[9]) - 1 do
    write(n, cjson.decode(redis.call('HGET', KEYS[1], n)))
  end
  redis.call('HSET', KEYS[1], 'v', 2, 'head', head(), 'counts', counts(), unpack(writes))
  redis.call('HDEL', KEYS[1], 'created', 'end', 'keep', 'max_failures', 'started', 'finished', 'stop',
             'rev', 'total', 'pending', 'running', 'retrying', 'succeeded', 'failed', 'unknown', 'cancelled')
  writes, drops, saved = {}, {}, {}
  return true
end

-- open reads the header, and item n if one is asked for. Returns false if there is no
-- record; the item.
local function open(n)
  n = n or 'none'
  local fields = redis.call('HMGET', KEYS[1], 'head', 'counts', n, n .. 't')
  if not fields[1] then
    if not upgrade() then return false end
    return open(n)
  end
  job = {}
  local created, finish_by, started, finished, stop
  created, finish_by, job.keep, job.max_failures, started, finished, stop =
    string.match(fields[1], '^(%d+) (%d+) (%d+) (%d+) (%d*) (%d*) ?(.*)$')
  job.created, job.finish_by, job.started, job.finished = tonumber(created), tonumber(finish_by), num(started), num(finished)
  job.stop = stop ~= '' and stop or nil
  job.rev, job.p, job.r, job.w, job.s, job.f, job.u, job.c =
    string.match(fields[2], '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$')
  for _, s in ipairs(STATES) do job[s] = tonumber(job[s]) end
  job.rev = tonumber(job.rev)
  return true, parse(fields[3], fields[4])
end

local function total()
  local sum = 0
  for _, s in ipairs(STATES) do sum = sum + job[s] end
  return sum
end

-- load reads another item.
local function load(n)
  local fields = redis.call('HMGET', KEYS[1], n, n .. 't')
  return parse(fields[1], fields[2])
end

local function put(n, item, state)
  job[item.s] = job[item.s] - 1
  job[state] = job[state] + 1
  item.s = state
  write(n, item)
end

-- stop ends every item that waits, because of the given code, and lets none begin
-- any more. What is running ends by itself.
local function stop(code, message, now)
  job.stop = code
  for n = 0, total() - 1 do
    local item = not saved[n] and load(n)
    if item and (item.s == 'p' or item.s == 'w') then
      item.e = now - job.created
      if item.k then
        put(n, item, 'u') -- an earlier call is in doubt: it cannot be called cancelled
      else
        item.c, item.m, item.y = code, message, nil
        put(n, item, 'c')
      end
    end
  end
end

-- commit writes what has changed, counts a revision, and closes the job if its last
-- item is final. Returns 1 if it is.
local function commit(now)
  job.rev = job.rev + 1
  local final = job.p + job.r + job.w == 0
  if final then job.finished = now - job.created end
  redis.call('HSET', KEYS[1], 'head', head(), 'counts', counts(), unpack(writes))
  if #drops > 0 then redis.call('HDEL', KEYS[1], unpack(drops)) end
  if not final then return 0 end
  redis.call('EXPIRE', KEYS[1], job.keep)
  return 1
end

-- save stores item n in the given state, and stops the job if too many have failed
-- now. Returns 1 when that made the job final.
local function save(n, item, state, now)
  put(n, item, state)
  local limit = tonumber(job.max_failures)
  if state == 'f' and limit > 0 and job.f >= limit and not job.stop then
    stop('RESET.1005', 'stopped after too many failures in the job', now)
  end
  return commit(now)
end

-- remember adds the attempt that ends now to the item's history.
local function remember(item, at, outcome, code, message)
  item.h = item.h or {}
  if #item.h == 20 then table.remove(item.h, 1) end
  item.h[#item.h + 1] = {n = item.a, b = item.r, e = at, o = outcome, c = code, m = message}
end

-- touch writes without changing anything, for a command that was sent twice: see
-- commit.go.
local function touch() redis.call('HSET', KEYS[1], 'counts', counts()) end

-- refusal says why a delivery may not go on with an item, or nil.
local function refusal(item, delivery, instance)
  if not item then return 'gone' end
  if item.i ~= instance then return 'instance' end
  if FINAL[item.s] then return 'final' end
  if (item.d or 1) ~= tonumber(delivery) then return 'delivery' end
end
