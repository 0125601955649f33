-- key.lua: read an access key, and how many wrong signatures have come from the asker's network of late.
-- KEYS[1] access key   KEYS[2] count of wrong signatures
-- returns the fields and values of the key, and the count
return {redis.call('HGETALL', KEYS[1]), tonumber(redis.call('GET', KEYS[2]) or 0)}
