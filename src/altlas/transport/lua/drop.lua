-- Removes keys of the run, unless a later coordinator leads.
--
-- KEYS[1] meta     hash of the run: fence
-- KEYS[2] lease    string, the leader's name; expires with the lease
-- KEYS[3..]        keys to remove
-- ARGV[1] fence    the caller's; 0 when it does not lead
-- Returns the number of keys removed, or the error FENCED with the fence that leads and the name of its owner.

local fence, leads = tonumber(ARGV[1]), redis.call('HGET', KEYS[1], 'fence') or '0'
if fence > 0 and tonumber(leads) > fence then
  return redis.error_reply('FENCED ' .. leads .. ' ' .. (redis.call('GET', KEYS[2]) or ''))
end
local removed = 0
for i = 3, #KEYS do
  removed = removed + redis.call('UNLINK', KEYS[i])
end
return removed
