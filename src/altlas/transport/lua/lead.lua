-- Makes the caller the run's coordinator, unless another one holds the lease.
-- The fence grows even when Redis has lost the last one, since it is never below the server's clock.
--
-- KEYS[1] lease    string, the leader's name; expires with the lease
-- KEYS[2] meta     hash of the run: fence
-- ARGV[1] owner    the caller's name
-- ARGV[2] lease_ms
-- ARGV[3] above    a fence that is known from elsewhere: the new one is larger
-- Returns {fence}, or {0, holder, ms that its lease lasts still}.

local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return { 0, holder, redis.call('PTTL', KEYS[1]) }
end
local now = redis.call('TIME')
local clock_us = tonumber(now[1]) * 1000000 + tonumber(now[2])
local fence = math.max(tonumber(redis.call('HGET', KEYS[2], 'fence') or 0) + 1, tonumber(ARGV[3]) + 1, clock_us)
redis.call('HSET', KEYS[2], 'fence', string.format('%.0f', fence))
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return { fence }
