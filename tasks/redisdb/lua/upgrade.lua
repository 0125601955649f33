-- upgrade.lua: rewrite a record of an older version, for a program that is about to
-- read it.
-- KEYS[1] job hash
-- returns 1 there is a record, and it is of this version; 0 there is none
return open() and 1 or 0
