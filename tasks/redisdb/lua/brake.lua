-- brake.lua: for the scripts that stop or remove something; it comes before all else.
-- KEYS[1] a hash
-- A Redis that is full refuses a script at its first write, if that could need memory, and
-- at no later one, or the script would be left half done. So the first write is one that
-- needs none: it drops a field that is never there. What follows is a few bytes.
redis.call('HDEL', KEYS[1], 'brake')

