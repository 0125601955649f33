-- admins.lua: for the scripts that change operators, who are the hash KEYS[1], each in JSON as
-- encoding/json writes it: without spaces, and no name has quotation marks.

-- admin reports whether an operator is an admin who can log in.
local function admin(text)
  return text:find('"role":"admin"', 1, true) ~= nil and text:find('"hash":""', 1, true) == nil
end

-- lastadmin reports whether the operator with a name is the only one.
local function lastadmin(name)
  local all = redis.call('HGETALL', KEYS[1])
  local is = false
  for i = 1, #all, 2 do
    if admin(all[i + 1]) then
      if all[i] ~= name then return false end
      is = true
    end
  end
  return is
end
