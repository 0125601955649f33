-- remember.lua: for the scripts that end attempts; it follows record.lua.

-- remember adds the attempt that ends now to the item's history.
local function remember(item, at, outcome, code, message)
  item.h = item.h or {}
  if #item.h == 20 then table.remove(item.h, 1) end
  item.h[#item.h + 1] = {n = item.a, b = item.r, e = at, o = outcome, c = code, m = message, j = item.j, dr = item.dr}
end
