-- Takes the run from the workers, unless a later coordinator leads. Nothing adds results to it from then on.
--
-- KEYS[1] jobs     stream of work
-- KEYS[2] open     hash, job id -> stream entry of every job that is waiting or in hand
-- KEYS[3] meta     hash of the run: fence
-- KEYS[4] lease    string, the leader's name; expires with the lease
-- KEYS[5] runs     set of the open runs
-- ARGV[1] run      its name
-- ARGV[2] fence    the caller's; 0 when it does not lead
-- Returns 1, or the error FENCED with the fence that leads and the name of its owner.

local fence, leads = tonumber(ARGV[2]), redis.call('HGET', KEYS[3], 'fence') or '0'
if fence > 0 and tonumber(leads) > fence then
  return redis.error_reply('FENCED ' .. leads .. ' ' .. (redis.call('GET', KEYS[4]) or ''))
end
redis.call('SREM', KEYS[5], ARGV[1])
redis.call('UNLINK', KEYS[1], KEYS[2])
return 1
