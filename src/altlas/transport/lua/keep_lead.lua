-- Renews the lease of the run's coordinator. What Redis has lost of lease and fence is put back.
--
-- KEYS[1] lease    string, the leader's name; expires with the lease
-- KEYS[2] meta     hash of the run: fence
-- ARGV[1] fence    the caller's
-- ARGV[2] owner    the caller's name
-- ARGV[3] lease_ms
-- Returns 1, or the error FENCED with the fence that leads and the name of its owner.

local leads = redis.call('HGET', KEYS[2], 'fence') or '0'
local holder = redis.call('GET', KEYS[1])
-- A smaller fence is an older state that Redis came back with.
if tonumber(leads) > tonumber(ARGV[1]) or (holder and holder ~= ARGV[2]) then
  return redis.error_reply('FENCED ' .. leads .. ' ' .. (holder or ''))
end
redis.call('HSET', KEYS[2], 'fence', ARGV[1])
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
