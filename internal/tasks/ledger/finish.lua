-- Finish a batch from its committed account. Only the call that takes the batch out of the open set counts.
--
-- KEYS 1 stats, 2 open, 3 outbox, 4 begun, 5 waits, 6 bases, 7 archived, 8 pace, 9 live jobs, 10 generations
-- ARGV 1 batch, 2 job, 3 note for the archive ('' = the task ends), 4 requests recorded,
--      5 request id and 6 generation of the account when it is of one request, else '' twice,
--      7 number of counters, that many pairs (name, increment),
--      then for each child: id, number of requests, when it is due (ms, 0 = at once), payload
-- Returns {1 if this call finished the batch else 0, 1 if the job ended with it else 0}
-- A batch that was opened again for a replay is not finished by who slept over that with an earlier account.
if ARGV[5] ~= '' and (redis.call('HGET', KEYS[10], ARGV[5]) or '0') ~= ARGV[6] then return { 0, 0 } end
local n = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0')
if redis.call('HDEL', KEYS[2], ARGV[1]) == 0 then return { 0, 0 } end
redis.call('HDEL', KEYS[4], ARGV[1])
redis.call('HDEL', KEYS[5], ARGV[1])
redis.call('HDEL', KEYS[6], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
if ARGV[3] ~= '' then redis.call('HSET', KEYS[7], ARGV[1], ARGV[3]) end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local at = 8
for _ = 1, tonumber(ARGV[7]) do
  redis.call('HINCRBY', KEYS[1], ARGV[at], ARGV[at + 1])
  at = at + 2
end
local open = -n
while at <= #ARGV do
  redis.call('HSET', KEYS[2], ARGV[at], ARGV[at + 1])
  redis.call('HSET', KEYS[3], ARGV[at], ARGV[at + 2] .. '|' .. now .. '|' .. ARGV[at + 3])
  open = open + tonumber(ARGV[at + 1])
  at = at + 4
end
local left = redis.call('HINCRBY', KEYS[1], 'open', open)
local recorded = tonumber(ARGV[4])
if recorded > 0 then -- how many were recorded in each of the last ten-second spans
  local span = math.floor(now / 10000)
  if redis.call('HINCRBY', KEYS[8], span, recorded) == recorded then
    for old = span - 20, span - 8 do redis.call('HDEL', KEYS[8], old) end
  end
end
if left <= 0 and redis.call('HGET', KEYS[1], 'sealed') then
  redis.call('HSET', KEYS[1], 'ended', now)
  redis.call('SREM', KEYS[9], ARGV[2])
  return { 1, 1 }
end
return { 1, 0 }
