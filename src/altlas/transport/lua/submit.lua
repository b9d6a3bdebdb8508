-- Puts jobs of one update up for work, in their order, as far as the window has room. Those that are waiting, in hand
-- or committed are left alone and take no room; a dead one is put up again with all its deliveries, since only a person
-- or a restart submits it a second time. Without jobs it tells how things stand.
--
-- KEYS[1] jobs     stream of work
-- KEYS[2] open     hash, job id -> stream entry of every job that is waiting or in hand
-- KEYS[3] done     hash of this update, job id -> result
-- KEYS[4] dead     hash of this update, job id -> last error
-- KEYS[5] meta     hash of the run: fence, counters
-- KEYS[6] lease    string, the leader's name; expires with the lease
-- ARGV[1] update   decimal
-- ARGV[2] fence    the caller's; 0 when it does not lead
-- ARGV[3] window   jobs of the run that may wait or be in hand
-- ARGV[4..]        job id and payload, alternating
-- Returns {jobs dealt with, from the first on; jobs waiting or in hand; dead jobs of the update}; {-1} when the run is
-- not open, since a stream made here would have no group; or the error FENCED with the fence that leads and the name of
-- its owner.

local jobs, open, done, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local fence, leads = tonumber(ARGV[2]), redis.call('HGET', KEYS[5], 'fence') or '0'
if fence > 0 and tonumber(leads) > fence then
  return redis.error_reply('FENCED ' .. leads .. ' ' .. (redis.call('GET', KEYS[6]) or ''))
end
if redis.call('EXISTS', jobs) == 0 then
  return { -1 }
end
local window, held = tonumber(ARGV[3]), redis.call('HLEN', open)
local dealt, issued = 0, 0
for i = 4, #ARGV, 2 do
  local job = ARGV[i]
  if redis.call('HEXISTS', open, job) == 0 and redis.call('HEXISTS', done, job) == 0 then
    if held >= window then
      break
    end
    -- The first write needs memory, so that a full server refuses here: after a first write it refuses nothing.
    local entry = redis.call('XADD', jobs, '*', 'job', job, 'update', ARGV[1], 'payload', ARGV[i + 1],
      'deliveries', '0', 'error', '')
    redis.call('HSET', open, job, entry)
    redis.call('HDEL', dead, job)
    held = held + 1
    issued = issued + 1
  end
  dealt = dealt + 1
end
if issued > 0 then
  redis.call('HINCRBY', KEYS[5], 'issued', issued)
end
return { dealt, held, redis.call('HLEN', dead) }
