-- look.lua: the part of send.lua's look that is about the instance, where it has to be
-- asked by itself.
-- needs: instance
-- KEYS[1] lock   KEYS[2] fleet entry
-- ARGV[1] item ID   ARGV[2] token of the attempt
-- ARGV[3] tenant    ARGV[4] '1' = an instance that is not registered is allowed
-- ARGV[5] driver and   ARGV[6] address that the attempt has   ARGV[7] see begin.lua's ARGV[15]
-- returns {''} or {reason}: busy, not allowed, reassigned, rerouted, moved
return {lapsed(KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]) or ''}
