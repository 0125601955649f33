-- record.lua: what the scripts on a job record share. It is put in front of each
-- of them; KEYS[1] is always the job hash.
--
-- Fields of the hash: v (schema version), created, end (ms; with not_before, if there is
-- one, behind a space), reason, labels (JSON), trace (context), by (who asked: address,
-- space, name), run (of which it is a part), if any, keep (retention, s), tenant, queue, open, request_id, fp, tasks,
-- total, max_failures (if any), rev (counts changes),
-- left (items that are not final), stop (the error code that no further attempt begins
-- for), epoch (random; the end of its tasks' IDs, so that a record which is made again under
-- the same ID meets no old task), cancel, retry (who asked last), again (when, ms), told, told:<n> (see
-- told.lua), held (since when (ms) and why its items wait, see hold.lua), and for each item:
--   <n>   "s a b e i", "s a b e i t r x k" while an attempt runs or the outcome of one
--         is in doubt, and each of them with a rest
--           s state (first letter; w = retrying)   a attempts
--           b first attempt began, e ended (ms since created)   i instance
--           t token of the running attempt   r it began (ms since created)
--           x 1 if an earlier call is in doubt, and 4 more until the attempt has asked
--             to send (attempts of older versions never ask, and count as sent)
--           k driver key
--         rest is JSON, without what is not there:
--           d delivery, if not 1   f failures (retry budget used)
--           g without an answer    l lost   p checkpoint
--           u waited for a busy instance (ms)   v when it was last found busy
--           w when the next try is due   q 1 if it was retried while a call was in doubt
--           z tokens that were given up: no attempt begins under them
--           c error code   m error message
--           dr driver that is to reset the instance, if not the default one
--           gn generation of the instance that the job is for, if it says so
--           j address of the instance at the last attempt, if the fleet has one
--           o what was seen of the instance after the last attempt
--           h attempts that did not succeed, the last 20: {n number, b began,
--             e ended, o outcome: a state's letter or 'l' for lost, c code, m message,
--             j address, dr driver, wk worker, st steps: see tasks.Steps}
--           at, wk, st when the attempt that succeeded began, its worker and its steps: only
--             if there is o or h, so that an item that succeeds at once stays short
--
-- Times are ms since created, and never negative: Redis's clock may step back, and
-- created may be another node's time. Older versions wrote negative ones, and y, which is
-- dropped. What store does not name is lost when an item is written by a version that does not
-- know it: at, wk and st of an item cannot be, because one that succeeded is not written again,
-- and what is in h stays, since that is kept as it was read.
--
-- How many items have which state is not stored: it follows from the items. All this is
-- made for speed: a script costs what it looks up, parses and writes, and the functions
-- below, which are made anew for each run. A value that exceeds the 64 bytes of Redis's
-- compact encoding costs 60 bytes more for each item, for good: with IDs of up to 11
-- characters none does in an ordinary life of less than 100 s.

local rev, left, stopped, created, finish_by, not_before, epoch -- of the header, once open has read it

-- Redis's clock is the only one in the record: workers' clocks may disagree. It stands still while a script runs.
local time
local function clock()
  if not time then
    local t = redis.call('TIME')
    time = t[1] * 1000 + math.floor(t[2] / 1000)
  end
  return time
end

-- since is a time in the record.
local function since(now)
  return math.max(0, now - created)
end

-- open reads the header and item n. Returns nil if there is no such record. A record of
-- another version is an error: nothing of it may be changed.
local function open(n)
  local f = redis.call('HMGET', KEYS[1], 'rev', 'left', 'stop', 'created', 'end', 'epoch', 'v', n)
  if not f[7] then return nil end
  if f[7] ~= VERSION then error('job record of version ' .. f[7] .. ', this program knows ' .. VERSION, 0) end
  not_before = nil
  rev, left, stopped, created, finish_by = f[1], tonumber(f[2]), f[3] ~= '' and f[3] or nil, tonumber(f[4]), tonumber(f[5])
  epoch = f[6]
  if not finish_by then
    local by, from = string.match(f[5], '^(%d+) (%d+)$')
    finish_by, not_before = tonumber(by), tonumber(from)
  end
  if not f[8] then return nil end
  local s, a, b, e, i, t, r, x, k, rest =
    string.match(f[8], '^(%a) (%d*) (%-?%d*) (%-?%d*) (%S+) ?([^ {]*) ?(%-?%d*) ?(%d?) ?([^ {]*) ?(.*)')
  local item = rest ~= '' and cjson.decode(rest) or {}
  item.s, item.a, item.b, item.e, item.i = s, tonumber(a), tonumber(b), tonumber(e), i
  if item.b and item.b < 0 then item.b = 0 end
  if t ~= '' then item.t, item.r = t, tonumber(r) end
  if k ~= '' then item.k, item.x = k, tonumber(x) end
  return item
end

-- store writes an item.
local function store(n, item)
  local raw = item.s .. ' ' .. (item.a or '') .. ' ' .. (item.b or '') .. ' ' .. (item.e or '') .. ' ' .. item.i
  if item.k then
    raw = raw .. ' ' .. (item.t or '') .. ' ' .. (item.r or '') .. ' ' .. (item.x or '') .. ' ' .. item.k
  end
  if item.d or item.f or item.g or item.l or item.u or item.w or item.q or item.z or item.c or item.o or item.j or item.dr or item.gn or item.h or item.p then
    raw = raw .. ' ' .. cjson.encode({d = item.d, f = item.f, g = item.g, l = item.l, p = item.p,
                                      u = item.u, v = item.v, w = item.w, q = item.q, z = item.z,
                                      c = item.c, m = item.m, o = item.o, j = item.j, dr = item.dr, gn = item.gn, h = item.h,
                                      at = item.at, wk = item.wk, st = item.st})
  end
  redis.call('HSET', KEYS[1], 'rev', rev + 1, 'left', left, n, raw)
end

-- close_if_ended closes the job when its last item has ended.
-- Returns 1 if it is closed.
local function close_if_ended()
  if left > 0 then return 0 end
  redis.call('PUBLISH', 'reset:finished', string.sub(KEYS[1], #'reset:{' + 1, -2)) -- a hint
  local run = redis.call('HGET', KEYS[1], 'run')
  if run then
    redis.call('PUBLISH', 'reset:runs', run) -- another one; the run has the record expire, with its own
  else
    redis.call('EXPIRE', KEYS[1], redis.call('HGET', KEYS[1], 'keep'))
  end
  return 1
end

-- refusal says why a delivery may not go on with an item, or nil. A delivery of a task
-- that does not tell its epoch has an empty one.
local function refusal(item, delivery, instance, of)
  if not item then return 'gone' end
  if item.i ~= instance then return 'instance' end
  if item.s ~= 'p' and item.s ~= 'r' and item.s ~= 'w' then return 'final' end
  if (item.d or 1) ~= tonumber(delivery) then return 'delivery' end
  if of and of ~= '' and epoch and of ~= epoch then return 'delivery' end
end
