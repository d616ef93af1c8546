-- One step of a walk over the outbox: which batches have been in it for long enough?
--
-- KEYS 1 outbox
-- ARGV 1 where the last step ended, '0' at first, 2 age in ms, 3 about how many batches to look at
-- Returns {where this step ended, '0' when it was the last, batches}
-- A walk meets every batch that is there from its beginning to its end; it may meet one twice.
local time = redis.call('TIME')
local before = time[1] * 1000 + math.floor(time[2] / 1000) - ARGV[2]
local step = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[3])
local old = {}
for i = 1, #step[2], 2 do
  if tonumber(string.match(step[2][i + 1], '^%d+|(%d+)|')) <= before then old[#old + 1] = step[2][i] end
end
return { step[1], old }
