-- busy.lua: for the scripts that find an item's instance busy.

-- busy counts for how long an item has waited for a busy instance: from one look to the
-- next, but at most a minute. Who looks later was held by something else meanwhile: a
-- halt, a quota, a long queue.
local function busy(item, at)
  if item.v then item.u = (item.u or 0) + math.min(math.max(0, at - item.v), 60000) end
  item.u, item.v = item.u or 0, at
  return item.u
end
