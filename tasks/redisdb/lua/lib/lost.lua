-- lost.lua: for the scripts that meet a running attempt; it follows remember.lua.

-- running says that an attempt at the item is under way, unless it is the one with the
-- given token, whose worker is dead: {'running', its token, attempts lost before}.
local function running(item, dead)
  if item.s == 'r' and item.t ~= dead then return {'running', item.t, item.l or 0} end
end

-- lose closes the attempt of a worker that died. One that had not asked to send sent
-- nothing, and puts nothing in doubt.
local function lose(item, at)
  local unsent = item.x and item.x >= 4
  remember(item, at, 'l', nil, unsent and 'nothing was sent' or nil)
  item.l = (item.l or 0) + 1
  if item.x == 4 then item.k, item.p = nil, nil end
end
