-- Accept batches: request hashes into the seen-set, each batch into the open set, its payload into the outbox.
-- A batch of which any hash is taken is refused whole: its taken indexes are returned and nothing of it is kept.
--
-- KEYS 1 stats, 2 open, 3 outbox, 4 live jobs
-- ARGV 1 prefix of the seen sets, 2 requests per seen set at which one is split, 3 number of seen sets,
--      4 job,
--      then for each batch: id, envelope ('0|SINCE|payload'), number of requests, and for each of those its set and its hash (decimal,
--      signed 64 bits)
-- Returns {number of seen sets} when ARGV[3] is not that, and nothing was done. Otherwise {number of seen sets,
--      results, now in ms}, with a result for each batch: {} when accepted, {0} when this very batch is open already, or its taken
--      indexes, from 1.
--
-- The seen-set is spread over many small sets that Redis keeps as sorted integers (8 bytes a request instead of
-- about 60). Their number grows by linear hashing: when the mean load passes ARGV[2], the next set in turn is split.
-- The set of a hash is its last twelve digits modulo the next power of two, or modulo half of that when there is no
-- such set yet. The caller works that out, because Lua takes twice as long over it as SADD itself; and the caller puts
-- the time before the payload, because Lua reads every byte of a string that it makes.
local call = redis.call
local sets = tonumber(call('HGET', KEYS[1], 'seen_sets') or '16')
if tonumber(ARGV[3]) ~= sets then return { sets } end
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local prefix, load = ARGV[1], tonumber(ARGV[2])
local accepted = tonumber(call('HGET', KEYS[1], 'accepted') or '0')
local before = accepted

local results, at = {}, 5
while at <= #ARGV do
  local id, envelope, n = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local first = at + 3
  at = first + 2 * n
  local result = {}
  if call('HEXISTS', KEYS[2], id) == 1 then
    result = { 0 }
  else
    local added = {}
    for i = first, at - 1, 2 do
      if call('SADD', prefix .. ARGV[i], ARGV[i + 1]) == 1 then
        added[#added + 1] = i
      else
        result[#result + 1] = (i - first) / 2 + 1
      end
    end
    if #result > 0 then
      for _, i in ipairs(added) do call('SREM', prefix .. ARGV[i], ARGV[i + 1]) end
    else
      call('HSET', KEYS[2], id, n)
      call('HSET', KEYS[3], id, envelope)
      accepted = accepted + n
    end
  end
  results[#results + 1] = result
end
if accepted == before then return { sets, results, now } end

local power = 1
while power * 2 <= sets do power = power * 2 end
while accepted > sets * load do
  local from, moved = prefix .. (sets - power), {}
  for _, hash in ipairs(call('SMEMBERS', from)) do
    if math.abs(tonumber(string.sub(hash, -12))) % (power * 2) == sets then moved[#moved + 1] = hash end
  end
  if #moved > 0 then
    call('SREM', from, unpack(moved))
    call('SADD', prefix .. sets, unpack(moved))
  end
  sets = sets + 1
  if sets == power * 2 then power = sets end
end
call('HINCRBY', KEYS[1], 'open', accepted - before)
call('HSET', KEYS[1], 'accepted', accepted, 'seen_sets', sets)
-- Where another producer sealed the job and it ended, it lives again: else nobody would sweep its outbox.
if call('HDEL', KEYS[1], 'ended') == 1 then call('SADD', KEYS[4], ARGV[4]) end
return { sets, results, now }
