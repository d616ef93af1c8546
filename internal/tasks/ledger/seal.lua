-- Seal a job: its producer has nothing more to bring.
--
-- KEYS 1 stats, 2 live jobs
-- ARGV 1 job
-- Returns 1 if the job has ended with it, else 0.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 'sealed', now)
if tonumber(redis.call('HGET', KEYS[1], 'open') or '0') > 0 then return 0 end
redis.call('HSET', KEYS[1], 'ended', now)
redis.call('SREM', KEYS[2], ARGV[1])
return 1
