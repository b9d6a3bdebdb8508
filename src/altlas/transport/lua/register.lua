-- Writes a run into the registry, once per request.
--
-- KEYS[1] requests hash, request id -> run id
-- KEYS[2] records  hash, run id -> record
-- ARGV[1] request  its id
-- ARGV[2] run      its id
-- ARGV[3] record   of the run
-- ARGV[4] replace  '1' when the record of a run of that name may be replaced
-- Returns the id of the run that this request made, now or earlier; false when another request made a run of that name.

local earlier = redis.call('HGET', KEYS[1], ARGV[1])
if earlier then
  return earlier
end
if ARGV[4] ~= '1' and redis.call('HEXISTS', KEYS[2], ARGV[2]) == 1 then
  return false
end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return ARGV[2]
