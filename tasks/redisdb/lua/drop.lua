-- drop.lua: release an instance that an attempt locked whose begin was given up, or see to
-- it that it is not locked by that attempt any more.
-- KEYS[1] lock   KEYS[2] what says so
-- ARGV[1] item ID   ARGV[2] token of the attempt   ARGV[3] how long to remember it (ms)
redis.call('SET', KEYS[2], '', 'PX', ARGV[3])
if redis.call('GET', KEYS[1]) == ARGV[1] .. ' ' .. ARGV[2] then redis.call('DEL', KEYS[1]) end
return 1
