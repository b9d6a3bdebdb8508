-- Announces the run and stores its task, unless a later coordinator leads.
-- What Redis has lost of the caller's lease and fence is put back.
--
-- KEYS[1] jobs     stream of work
-- KEYS[2] meta     hash of the run: terms, fence
-- KEYS[3] lease    string, the leader's name; expires with the lease
-- KEYS[4] runs     set of the open runs
-- KEYS[5] task     string, the task's text
-- ARGV[1] group    consumer group
-- ARGV[2] run      its name
-- ARGV[3] text     of the task
-- ARGV[4] fence    the caller's; 0 when it does not lead
-- ARGV[5] owner    the caller's name; '' when it does not lead (any more)
-- ARGV[6] lease_ms
-- ARGV[7..]        names and values of terms for meta, alternating
-- Returns 1, or the error FENCED with the fence that leads and the name of its owner.

local jobs, meta, lease = KEYS[1], KEYS[2], KEYS[3]
local fence, owner = tonumber(ARGV[4]), ARGV[5]
local leads = redis.call('HGET', meta, 'fence') or '0'
if fence > 0 and tonumber(leads) > fence then
  return redis.error_reply('FENCED ' .. leads .. ' ' .. (redis.call('GET', lease) or ''))
end
-- The task comes first: a worker that sees the run must find it, and a full server refuses here or nowhere.
redis.call('SET', KEYS[5], ARGV[3])
if owner ~= '' and tonumber(leads) < fence then
  redis.call('HSET', meta, 'fence', ARGV[4])
  redis.call('SET', lease, owner, 'PX', ARGV[6])
end
for i = 7, #ARGV, 2 do
  redis.call('HSET', meta, ARGV[i], ARGV[i + 1])
end
if redis.call('EXISTS', jobs) == 0 then
  redis.call('XGROUP', 'CREATE', jobs, ARGV[1], '0', 'MKSTREAM')
end
redis.call('SADD', KEYS[4], ARGV[2])
return 1
