-- Keeps the leases of the caller's deliveries. One that another worker has taken over stays with that worker.
--
-- KEYS[1] jobs     stream of work
-- ARGV[1] group    consumer group
-- ARGV[2] worker   the caller's consumer name
-- ARGV[3..]        stream entries
-- Returns the number of leases kept.

if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0 -- the run was closed
end
local kept = 0
for i = 3, #ARGV do
  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1)
  if #pending > 0 and pending[1][2] == ARGV[2] then
    -- JUSTID resets the idle time and leaves the delivery count alone.
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'JUSTID')
    kept = kept + 1
  end
end
return kept
