-- shorten.lua: have a token end after a while, unless it ends sooner.
-- KEYS[1] token   ARGV[1] while (ms)   ARGV[2] how long it is remembered after that (ms)
-- returns 1 done, 0 it ends sooner, -1 there is no such token
if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
local time = redis.call('TIME')
local ends = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1]
local was = redis.call('HMGET', KEYS[1], 'expires', 'revoked')
if was[2] or was[1] and tonumber(was[1]) <= ends then return 0 end
-- When it was to end counts for what is made in its place, also the next time. 0: never.
redis.call('HSETNX', KEYS[1], 'planned', was[1] or 0)
redis.call('HSET', KEYS[1], 'expires', string.format('%.0f', ends))
redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', ends + ARGV[2]))
return 1
