-- Which of these hashes has the job not seen?
--
-- KEYS 1 stats
-- ARGV 1 prefix of the seen sets, then hashes
-- Returns the indexes, from 1, of those that are in no set.
local sets = tonumber(redis.call('HGET', KEYS[1], 'seen_sets') or '16')
local power = 1
while power * 2 <= sets do power = power * 2 end
local missing = {}
for i = 2, #ARGV do
  local r = math.abs(tonumber(string.sub(ARGV[i], -12)))
  local s = r % (power * 2)
  if s >= sets then s = r % power end
  if redis.call('SISMEMBER', ARGV[1] .. string.format('%d', s), ARGV[i]) == 0 then missing[#missing + 1] = i - 1 end
end
return missing
