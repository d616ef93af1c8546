-- Reopen an archived batch: someone pressed Run on its task.
--
-- KEYS 1 stats, 2 open, 3 generations, 4 archived, 5 bases, 6 live jobs
-- ARGV 1 batch, 2 job, 3 request id, 4 the note under which it was archived, 5 its generation, 6 asynq's retry count,
--      7 outcome it had, 8 error class it had, 9 bytes it had
-- Returns 1 when it is open again, 0 when it was not archived so (the call came twice, or the request was taken again).
if redis.call('HGET', KEYS[4], ARGV[1]) ~= ARGV[4] then return 0 end
redis.call('HDEL', KEYS[4], ARGV[1])
if (redis.call('HGET', KEYS[3], ARGV[3]) or '0') ~= ARGV[5] then return 0 end
redis.call('HSET', KEYS[3], ARGV[3], ARGV[5] + 1)
redis.call('HSET', KEYS[2], ARGV[1], 1)
redis.call('HSET', KEYS[5], ARGV[1], ARGV[6])
redis.call('HINCRBY', KEYS[1], ARGV[7], -1)
redis.call('HINCRBY', KEYS[1], 'class:' .. ARGV[8], -1)
redis.call('HINCRBY', KEYS[1], 'bytes', 0 - ARGV[9]) -- not -ARGV[9]: of '0' that is '-0', which Redis refuses
redis.call('HINCRBY', KEYS[1], 'open', 1)
redis.call('HDEL', KEYS[1], 'ended')
redis.call('SADD', KEYS[6], ARGV[2])
return 1
