-- Gives the lease of the run's coordinator up, if it is the caller's. The fence stays, so that the next is larger.
--
-- KEYS[1] lease    string, the leader's name; expires with the lease
-- KEYS[2] meta     hash of the run: fence
-- ARGV[1] fence    the caller's
-- ARGV[2] owner    the caller's name
-- Returns 1 when it was the caller's, else 0.

if redis.call('GET', KEYS[1]) ~= ARGV[2] or redis.call('HGET', KEYS[2], 'fence') ~= ARGV[1] then
  return 0
end
return redis.call('DEL', KEYS[1])
