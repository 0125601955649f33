-- used.lua: count what was spent in the last hour.
-- needs: quota
-- KEYS[1] counts by minute
-- returns how many there were
return used(KEYS[1])
