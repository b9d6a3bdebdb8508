-- Gives jobs back unstarted: each is put up again at once and the delivery is not counted.
-- A delivery that is not the caller's any more is left alone.
--
-- KEYS[1] jobs     stream of work
-- KEYS[2] open     hash, job id -> stream entry of every job that is waiting or in hand
-- ARGV[1] group    consumer group
-- ARGV[2] worker   the caller's consumer name
-- ARGV[3..]        stream entry and its deliveries without this one, alternating
-- Returns the number of jobs given back.

local jobs, open, group, worker = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0 -- the run was closed
end
local released = 0
for i = 3, #ARGV, 2 do
  local entry = ARGV[i]
  local pending = redis.call('XPENDING', jobs, group, entry, entry, 1)
  if #pending > 0 and pending[1][2] == worker then
    local found = redis.call('XRANGE', jobs, entry, entry)
    local field = {}
    for j = 1, #found[1][2], 2 do
      field[found[1][2][j]] = found[1][2][j + 1]
    end
    redis.call('XACK', jobs, group, entry)
    redis.call('XDEL', jobs, entry)
    local again = redis.call('XADD', jobs, '*', 'job', field.job, 'update', field.update, 'payload', field.payload,
      'deliveries', ARGV[i + 1], 'error', field.error)
    redis.call('HSET', open, field.job, again)
    released = released + 1
  end
end
return released
