-- Gives a job back after a fault of ours. It is put up again, or dead once it was delivered often enough.
-- Nothing happens when the delivery is not the caller's any more: the job is with another worker, or finished.
--
-- KEYS[1] jobs     stream of work
-- KEYS[2] open     hash, job id -> stream entry of every job that is waiting or in hand
-- KEYS[3] dead     hash of this update, job id -> last error
-- KEYS[4] results  list of this update, which wakes the collector: committed job ids, '' for a dead one
-- KEYS[5] letters  stream of dead jobs with payload and error, for inspection
-- KEYS[6] meta     hash of the run: counters
-- ARGV[1] group    consumer group
-- ARGV[2] worker   the caller's consumer name
-- ARGV[3] entry    stream entry that was delivered
-- ARGV[4] deliveries      deliveries so far, this one counted
-- ARGV[5] max_deliveries  deliveries after which the job is dead
-- ARGV[6] error    what went wrong
-- Returns 'requeued', 'dead' or 'ignored'.

local jobs, open, dead, results, letters, meta = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local group, worker, entry, deliveries, why = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[6]
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 'ignored' -- the run was closed
end
local pending = redis.call('XPENDING', jobs, group, entry, entry, 1)
if #pending == 0 or pending[1][2] ~= worker then
  return 'ignored'
end
local found = redis.call('XRANGE', jobs, entry, entry)
local field = {}
for i = 1, #found[1][2], 2 do
  field[found[1][2][i]] = found[1][2][i + 1]
end
redis.call('XACK', jobs, group, entry)
redis.call('XDEL', jobs, entry)
if tonumber(deliveries) < tonumber(ARGV[5]) then
  local again = redis.call('XADD', jobs, '*', 'job', field.job, 'update', field.update, 'payload', field.payload,
    'deliveries', deliveries, 'error', why)
  redis.call('HSET', open, field.job, again)
  return 'requeued'
end
redis.call('HDEL', open, field.job)
redis.call('HSET', dead, field.job, why)
redis.call('XADD', letters, '*', 'job', field.job, 'update', field.update, 'payload', field.payload,
  'deliveries', deliveries, 'error', why, 'worker', worker)
redis.call('HINCRBY', meta, 'dead', 1)
redis.call('RPUSH', results, '')
return 'dead'
