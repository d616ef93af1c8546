-- Put back into the ledger what committed units tell: requests that are recorded, and batches that follow from them.
-- Used where Redis was lost (or was an embedded one) and the store was not.
--
-- KEYS 1 stats, 2 open, 3 outbox, 4 generations
-- ARGV 1 prefix of the seen sets, 2 number of the seen sets, 3 number of hashes, that many hashes,
--      number of generations, that many pairs (request id, generation),
--      then for each open batch: id, number of requests, when it is due (ms, 0 = at once), payload
-- Returns the number of hashes that were new. Counters are set by the caller, once, at the end.
local new, at = 0, 4
for _ = 1, tonumber(ARGV[3]) do
  local r = math.abs(tonumber(string.sub(ARGV[at], -12)))
  new = new + redis.call('SADD', ARGV[1] .. string.format('%d', r % tonumber(ARGV[2])), ARGV[at])
  at = at + 1
end
local pairs_left = tonumber(ARGV[at])
at = at + 1
for _ = 1, pairs_left do
  redis.call('HSET', KEYS[4], ARGV[at], ARGV[at + 1])
  at = at + 2
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
while at <= #ARGV do
  redis.call('HSET', KEYS[2], ARGV[at], ARGV[at + 1])
  redis.call('HSET', KEYS[3], ARGV[at], ARGV[at + 2] .. '|' .. now .. '|' .. ARGV[at + 3])
  at = at + 4
end
return new
