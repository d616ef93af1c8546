-- Create a job, or open it again for more.
--
-- KEYS 1 stats, 2 spec, 3 jobs, 4 live jobs
-- ARGV 1 job, 2 spec
-- Returns {1, spec} when the job is new, {0, the spec it has} when it was there.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local fresh = redis.call('SETNX', KEYS[2], ARGV[2])
redis.call('HSETNX', KEYS[1], 'created', now)
redis.call('ZADD', KEYS[3], 'NX', now, ARGV[1])
redis.call('SADD', KEYS[4], ARGV[1])
redis.call('HDEL', KEYS[1], 'sealed', 'ended')
return { fresh, redis.call('GET', KEYS[2]) }
