-- Give a batch back: this delivery ends without a unit, and was no crash.
--
-- KEYS 1 begun, 2 waits, 3 open
-- ARGV 1 batch, 2 'same' (nothing was tried) or 'tried', then with the latter: 3 waits in a row, 4 since when (ms),
--      5 what went wrong
-- Returns 1 if the batch is open, else 0.
redis.call('HDEL', KEYS[1], ARGV[1])
if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 0 then return 0 end
if ARGV[2] == 'tried' then redis.call('HSET', KEYS[2], ARGV[1], ARGV[3] .. ' ' .. ARGV[4] .. ' ' .. ARGV[5]) end
return 1
