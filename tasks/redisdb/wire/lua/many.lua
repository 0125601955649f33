-- many.lua: run a script on one item for many items at once. It follows that script,
-- which has become the function one; see Scripts.Many.
-- KEYS    those of the first item, those of the second, …
-- ARGV[1] number of keys of each item   ARGV[2] number of arguments of each item
-- ARGV    then those of the first item, those of the second, …
-- returns the answers in the same order, an error in the place of an answer; one
--         error if nothing but errors came of it, as if it were a single script
local per_keys, per_args = tonumber(all_args[1]), tonumber(all_args[2])
local answers, errors, failure = {}, 0, nil
for i = 1, #all_keys / per_keys do
  KEYS = {unpack(all_keys, (i - 1) * per_keys + 1, i * per_keys)}
  ARGV = {unpack(all_args, (i - 1) * per_args + 3, i * per_args + 2)}
  local ok, answer = pcall(one)
  if not ok then
    if type(answer) ~= 'table' then answer = {err = 'ERR ' .. tostring(answer)} end
    failure, errors = answer, errors + 1
  end
  answers[i] = answer
end
if errors == #answers then return failure end
return answers
