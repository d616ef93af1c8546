-- Give a batch back: this delivery ends without a unit, and was no crash.
--
-- KEYS 1 begun, 2 waits, 3 open
-- ARGV 1 batch, 2 token of the delivery, 3 1 = it began beside other suspects, else 0, 4 'same' (nothing was tried: what
--      vanished before still counts) or 'tried' (nothing counts any more), then with the latter: 5 waits in a row,
--      6 since when (ms), 7 what went wrong
-- Returns 1 if the batch is open, else 0.
local begun, company, last = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^(%d+) (%d+) (.*)$')
if ARGV[4] == 'same' and begun then
  if last == ARGV[2] then
    if tonumber(begun) > 1 then
      redis.call('HSET', KEYS[1], ARGV[1], begun - 1 .. ' ' .. company - ARGV[3] .. ' -')
    else
      redis.call('HDEL', KEYS[1], ARGV[1])
    end
  end
else
  redis.call('HDEL', KEYS[1], ARGV[1])
end
if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 0 then return 0 end
if ARGV[4] == 'tried' then redis.call('HSET', KEYS[2], ARGV[1], ARGV[5] .. ' ' .. ARGV[6] .. ' ' .. ARGV[7]) end
return 1
