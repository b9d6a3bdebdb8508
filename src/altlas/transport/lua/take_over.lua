-- Hands jobs whose lease has run out to the caller. One that was delivered often enough already is dead instead.
-- The cursor of XAUTOCLAIM is followed to its end, so that no expired entry hides behind those still held.
--
-- KEYS[1] jobs     stream of work
-- KEYS[2] open     hash, job id -> stream entry of every job that is waiting or in hand
-- KEYS[3] letters  stream of dead jobs with payload and error, for inspection
-- KEYS[4] meta     hash of the run: counters
-- KEYS[5] dead     prefix: with an update appended, the hash job id -> last error
-- KEYS[6] results  prefix: with an update appended, the list that wakes the collector: committed job ids, '' for dead
-- ARGV[1] group    consumer group
-- ARGV[2] worker   the caller's consumer name
-- ARGV[3] lease_ms        idle time after which a lease has run out
-- ARGV[4] max_deliveries  deliveries after which a job is dead
-- ARGV[5] count    most jobs to hand over
-- Returns a list of {entry, job, update, payload, deliveries}.

local jobs, open, letters, meta = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group, worker = ARGV[1], ARGV[2]
local lease_ms, max_deliveries, count = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local taken, cursor = {}, '0-0'

local function bury(entry, field, deliveries)
  local why = 'its lease ran out at delivery ' .. deliveries .. ': the worker died or hung'
  if field.error ~= '' then
    why = why .. '; before that: ' .. field.error
  end
  redis.call('XACK', jobs, group, entry)
  redis.call('XDEL', jobs, entry)
  redis.call('HDEL', open, field.job)
  redis.call('HSET', KEYS[5] .. field.update, field.job, why)
  redis.call('XADD', letters, '*', 'job', field.job, 'update', field.update, 'payload', field.payload,
    'deliveries', deliveries, 'error', why, 'worker', worker)
  redis.call('HINCRBY', meta, 'dead', 1)
  redis.call('RPUSH', KEYS[6] .. field.update, '')
end

repeat
  local claimed = redis.call('XAUTOCLAIM', jobs, group, worker, lease_ms, cursor, 'COUNT', count - #taken)
  cursor = claimed[1]
  for _, found in ipairs(claimed[2]) do
    local entry, field = found[1], {}
    for i = 1, #found[2], 2 do
      field[found[2][i]] = found[2][i + 1]
    end
    local pending = redis.call('XPENDING', jobs, group, entry, entry, 1)
    local deliveries = tonumber(field.deliveries) + pending[1][4]
    if deliveries > max_deliveries then
      bury(entry, field, deliveries - 1)
    else
      redis.call('HINCRBY', meta, 'reclaimed', 1)
      taken[#taken + 1] = { entry, field.job, field.update, field.payload, deliveries }
    end
  end
until cursor == '0-0' or #taken >= count
return taken
