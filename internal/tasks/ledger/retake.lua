-- Take a recorded request again, as a new batch of one in the next generation.
--
-- KEYS 1 stats, 2 open, 3 generations, 4 outbox, 5 live jobs
-- ARGV 1 batch, 2 job, 3 request id, 4 generation to take it in, 5 payload,
--      6 outcome it had, 7 error class it had, 8 bytes it had, 9 the batch whose unit holds its record
-- Returns 1 when it was taken, 0 when that generation was begun before, or the record's batch is not finished yet.
if redis.call('HEXISTS', KEYS[2], ARGV[9]) == 1 then return 0 end
if tonumber(redis.call('HGET', KEYS[3], ARGV[3]) or '0') >= tonumber(ARGV[4]) then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[3], ARGV[3], ARGV[4])
redis.call('HSET', KEYS[2], ARGV[1], 1)
redis.call('HSET', KEYS[4], ARGV[1], '0|' .. now .. '|' .. ARGV[5])
redis.call('HINCRBY', KEYS[1], ARGV[6], -1)
redis.call('HINCRBY', KEYS[1], 'class:' .. ARGV[7], -1)
redis.call('HINCRBY', KEYS[1], 'bytes', 0 - ARGV[8]) -- not -ARGV[8]: of '0' that is '-0', which Redis refuses
redis.call('HINCRBY', KEYS[1], 'open', 1)
redis.call('HDEL', KEYS[1], 'ended')
redis.call('SADD', KEYS[5], ARGV[2])
return 1
