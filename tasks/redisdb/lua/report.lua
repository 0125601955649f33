-- report.lua: keep what a worker process tells of itself, and say what it is ordered to do. An order lapses with the
-- worker.
-- KEYS[1] its report, KEYS[2] the order   ARGV[1] the report, ARGV[2] how long it is kept (ms),
-- ARGV[3] how long the order is good for if no other report comes (ms)
-- answers {the order or '', the time (ms)}
-- PEXPIRE comes first: a script that has written may SET while Redis is full.
redis.call('PEXPIRE', KEYS[2], ARGV[3])
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('SET', KEYS[1], string.format('%.0f ', ms) .. ARGV[1], 'PX', ARGV[2])
return {redis.call('GET', KEYS[2]) or '', ms}
