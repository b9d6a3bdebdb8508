-- Stores the first result of a job, its scores, acks and deletes the entry and wakes the collector, in one step.
-- Later results of the same job are counted and thrown away, even when the update has been forgotten since.
--
-- KEYS[1] jobs     stream of work
-- KEYS[2] open     hash, job id -> stream entry of every job that is waiting or in hand
-- KEYS[3] done     hash of this update, job id -> result
-- KEYS[4] results  list of this update, which wakes the collector: committed job ids, '' for a dead one
-- KEYS[5] scores   hash of the run, fingerprint -> score
-- KEYS[6] meta     hash of the run: counters
-- ARGV[1] group    consumer group
-- ARGV[2] entry    stream entry that was delivered
-- ARGV[3] job      job id
-- ARGV[4] result   payload
-- ARGV[5..]        fingerprint and score, alternating
-- Returns 1 for the first result, 0 for a duplicate.

local jobs, open, done, results, scores, meta = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local group, entry, job = ARGV[1], ARGV[2], ARGV[3]
local current = redis.call('HGET', open, job)
if not current then
  redis.call('HINCRBY', meta, 'duplicates', 1)
  return 0
end
redis.call('HSET', done, job, ARGV[4])
for i = 5, #ARGV, 2 do
  redis.call('HSETNX', scores, ARGV[i], ARGV[i + 1])
end
-- The job may have been given back and put up under a new entry since this delivery.
redis.call('XACK', jobs, group, entry, current)
redis.call('XDEL', jobs, entry, current)
redis.call('HDEL', open, job)
redis.call('HINCRBY', meta, 'committed', 1)
redis.call('RPUSH', results, job)
return 1
