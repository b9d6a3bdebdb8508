-- Takes a worker out of the group, unless it has jobs in hand: deleting it then would lose them.
--
-- KEYS[1] jobs     stream of work
-- ARGV[1] group    consumer group
-- ARGV[2] worker   consumer name
-- Returns 1 when it has left or was not there, 0 when it has jobs in hand.

if redis.call('EXISTS', KEYS[1]) == 0 then
  return 1
end
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then
  return 0
end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
