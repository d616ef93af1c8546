-- Accept batches: request hashes into the seen-set, each batch into the open set, its payload into the outbox.
-- A batch of which any hash is taken is refused whole: its taken indexes are returned and nothing of it is kept.
--
-- KEYS 1 stats, 2 open, 3 outbox, 4 outbox times
-- ARGV 1 prefix of the seen sets, 2 requests per seen set at which one is split,
--      then for each batch: id, payload, number of requests, their hashes (decimal, signed 64 bits, each with a
--      comma behind it)
-- Returns for each batch {} when accepted, {0} when this very batch is open already, or its taken indexes, from 1.
--
-- The seen-set is spread over many small sets that Redis keeps as sorted integers (8 bytes a request instead of
-- about 60). Their number grows by linear hashing: when the mean load passes ARGV[2], the next set in turn is split.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local sets = tonumber(redis.call('HGET', KEYS[1], 'seen_sets') or '1')
local accepted = tonumber(redis.call('HGET', KEYS[1], 'accepted') or '0')
local before = accepted
local power = 1
while power * 2 <= sets do power = power * 2 end

local function number(hash) return math.abs(tonumber(string.sub(hash, -12))) end
local function set_of(hash)
  local r = number(hash)
  local s = r % (power * 2)
  if s >= sets then s = r % power end
  return ARGV[1] .. string.format('%d', s)
end
local function split()
  local from, to, moved = sets - power, sets, {}
  for _, hash in ipairs(redis.call('SMEMBERS', ARGV[1] .. string.format('%d', from))) do
    if number(hash) % (power * 2) == to then moved[#moved + 1] = hash end
  end
  if #moved > 0 then
    redis.call('SREM', ARGV[1] .. string.format('%d', from), unpack(moved))
    redis.call('SADD', ARGV[1] .. string.format('%d', to), unpack(moved))
  end
  sets = sets + 1
  if sets == power * 2 then power = sets end
end

local results, at = {}, 3
while at <= #ARGV do
  local id, payload, n, hashes = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3]
  at = at + 4
  local result = {}
  if redis.call('HEXISTS', KEYS[2], id) == 1 then
    result = { 0 }
  else
    local added, i = {}, 0
    for hash in string.gmatch(hashes, '([^,]+),') do
      i = i + 1
      if redis.call('SADD', set_of(hash), hash) == 1 then
        added[#added + 1] = hash
      else
        result[#result + 1] = i
      end
    end
    if #result > 0 then
      for _, hash in ipairs(added) do redis.call('SREM', set_of(hash), hash) end
    else
      redis.call('HSET', KEYS[2], id, n)
      redis.call('HSET', KEYS[3], id, '0|' .. payload)
      redis.call('ZADD', KEYS[4], now, id)
      accepted = accepted + n
      while accepted > sets * tonumber(ARGV[2]) do split() end
    end
  end
  results[#results + 1] = result
end
if accepted > before then
  redis.call('HINCRBY', KEYS[1], 'open', accepted - before)
  redis.call('HSET', KEYS[1], 'accepted', accepted, 'seen_sets', sets)
  redis.call('HDEL', KEYS[1], 'ended')
end
return results
