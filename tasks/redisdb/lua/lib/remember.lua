-- remember.lua: for the scripts that end attempts; it follows record.lua.

-- worker is the ID of the worker process that made the item's attempt, if its token says so:
-- see codec.WorkerOf.
local function worker(item)
  return item.t and #item.t == 16 and string.sub(item.t, 1, 8) or nil
end

-- remember adds the attempt that ends now to the item's history.
local function remember(item, at, outcome, code, message, steps)
  item.h = item.h or {}
  if #item.h == 20 then table.remove(item.h, 1) end
  item.h[#item.h + 1] = {n = item.a, b = item.r, e = at, o = outcome, c = code, m = message, j = item.j, dr = item.dr,
                       wk = worker(item), st = steps}
end
