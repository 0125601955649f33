-- used.lua: KEYS[1] counts by minute; returns how many there were in the last hour
return used(KEYS[1])
