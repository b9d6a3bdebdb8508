-- Puts jobs of one update up for work. Those that are waiting, in hand or committed are left alone; a dead one is
-- put up again with all its deliveries, since only a person or a restart submits it a second time.
--
-- KEYS[1] jobs     stream of work
-- KEYS[2] open     hash, job id -> stream entry of every job that is waiting or in hand
-- KEYS[3] done     hash of this update, job id -> result
-- KEYS[4] dead     hash of this update, job id -> last error
-- ARGV[1] update   decimal
-- ARGV[2..]        job id and payload, alternating
-- Returns the number of jobs put up, or -1 when the run is not open: a stream made here would have no group.

local jobs, open, done, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
if redis.call('EXISTS', jobs) == 0 then
  return -1
end
local added = 0
for i = 2, #ARGV, 2 do
  local job = ARGV[i]
  if redis.call('HEXISTS', open, job) == 0 and redis.call('HEXISTS', done, job) == 0 then
    -- The first write needs memory, so that a full server refuses here: after a first write it refuses nothing.
    local entry = redis.call('XADD', jobs, '*', 'job', job, 'update', ARGV[1], 'payload', ARGV[i + 1],
      'deliveries', '0', 'error', '')
    redis.call('HSET', open, job, entry)
    redis.call('HDEL', dead, job)
    added = added + 1
  end
end
return added
