-- rights.lua: which commands the user of this connection must not run.
-- ARGV[1..] commands with their arguments, with spaces between them; none is run
-- Returns those, or nothing if this Redis cannot tell (before 7.0).
if not redis.acl_check_cmd then return {} end
local barred = {}
for _, command in ipairs(ARGV) do
  local words = {}
  for word in string.gmatch(command, '%S+') do words[#words + 1] = word end
  if not redis.acl_check_cmd(unpack(words)) then barred[#barred + 1] = command end
end
return barred
