-- instance.lua: for the scripts that lock an instance.

-- protects says whether a protection holds now, of a fleet entry's protected and protected_until.
local function protects(protected, till)
  if protected ~= '1' or not till then return protected == '1' end
  local t = redis.call('TIME')
  return tonumber(till) > t[1] * 1000 + math.floor(t[2] / 1000)
end

-- barred says why an item may not have an instance: 'not allowed' if it is protected or
-- not the tenant's (open = '1': one that is not registered is allowed), 'reassigned' if it has
-- another generation than the job was submitted for ('' = any), 'rerouted' if it has another driver,
-- 'busy' if another item has it. Otherwise it returns nil, the token of another attempt at the item that
-- has it, or nil, the address and the labels (JSON) that the fleet has, or '', and whether it is locked.
--
-- The value of a lock is "<item> <token>", because only the attempt that has the lock may
-- release it. Two attempts at one item can meet here: one whose worker was frozen and its
-- successor, or a late delivery and the current one. Which of them may go on is for the
-- record to say, so the lock changes hands only after that.
local function barred(lock, fleet, item, token, tenant, open, driver, generation)
  local entry = redis.call('HMGET', fleet, 'tenant', 'protected', 'address', 'labels', 'driver', 'protected_until', 'generation')
  if entry[1] then
    if entry[1] ~= tenant or protects(entry[2], entry[6]) then return 'not allowed' end
  elseif open ~= '1' then
    return 'not allowed'
  end
  if generation ~= '' and generation ~= (entry[7] or entry[1] and '1') then return 'reassigned' end
  if (entry[5] or '') ~= driver then return 'rerouted' end
  local holder = redis.call('GET', lock)
  if not holder or holder == item .. ' ' .. token then return nil, nil, entry[3] or '', entry[4] or '', holder end
  if string.sub(holder, 1, #item + 1) ~= item .. ' ' then return 'busy' end
  return nil, string.sub(holder, #item + 2), entry[3] or '', entry[4] or '', holder
end

-- lapsed says why an attempt that locked an instance may not go on: as barred, 'moved' if the
-- instance has another address by now, or 'busy' if its lock is gone.
local function lapsed(lock, fleet, item, token, tenant, open, driver, address, generation)
  local reason, others, now, _, locked = barred(lock, fleet, item, token, tenant, open, driver, generation)
  if reason then return reason end
  if now ~= address then return 'moved' end
  if others or not locked then return 'busy' end
end
