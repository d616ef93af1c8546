-- Begin a delivery of a batch. The same delivery may begin again, because a client repeats a command whose reply was
-- lost: it is known by its token and counted once.
--
-- KEYS 1 stats, 2 open, 3 begun, 4 waits, 5 generations, 6 archived, 7 bases,
--      8 what is known of the batch's host: a hash whose field 'care' says, in µs, until when those without limits are to
--      ask there, too
-- ARGV 1 batch, 2 request id when the batch holds one request, else empty, 3 number of deliveries that vanished at
--      which the batch is a suspect, 0 = it never is, 4 token of this delivery, 5 1 = beside other suspects, else 0
-- Returns {state, now in ms, ...}:
--   {'open', now, deliveries begun and not returned (this one included), generation, base, waits, waits since, store,
--    what went wrong last, µs for which care is taken of the host, those begun earlier that were beside suspects,
--    1 = the job has had large bodies}
--     base: asynq's retry count when the batch was replayed; waits: in a row, as noted by return.lua; -1 = nothing noted
--   {'archived', now, what finish.lua noted}  the batch's one request had its last attempt
--   {'closed', now}                           finished, or never accepted
--   {'suspect', now}                          so many deliveries have vanished, or more; this one was not counted
--   {'unknown', now}                          there is no such job
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local stats = redis.call('HMGET', KEYS[1], 'created', 'store', 'large')
if not stats[1] then return { 'unknown', now } end
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then
  local noted = redis.call('HGET', KEYS[6], ARGV[1])
  if noted then return { 'archived', now, noted } end
  return { 'closed', now }
end
local counted = redis.call('HGET', KEYS[3], ARGV[1]) or '0 0 '
local begun, company, last = string.match(counted, '^(%d+) (%d+) (.*)$')
if not begun then -- as written by a worker that does not count company
  begun, last = string.match(counted, '^(%d+) ?(.*)$')
end
begun, company = tonumber(begun), tonumber(company or 0)
if last ~= ARGV[4] then
  local suspect = tonumber(ARGV[3])
  if suspect > 0 and begun >= suspect then return { 'suspect', now } end
  begun = begun + 1
  redis.call('HSET', KEYS[3], ARGV[1], begun .. ' ' .. company + ARGV[5] .. ' ' .. ARGV[4])
else
  company = company - ARGV[5]
end
local generation = '0'
if ARGV[2] ~= '' then generation = redis.call('HGET', KEYS[5], ARGV[2]) or '0' end
local base = redis.call('HGET', KEYS[7], ARGV[1]) or '0'
local waits, since, text = -1, 0, ''
local noted = redis.call('HGET', KEYS[4], ARGV[1])
if noted then
  local a, b, c = string.match(noted, '^(%d+) (%d+) ?(.*)$')
  waits, since, text = tonumber(a), tonumber(b), c
end
local care = math.max(0, tonumber(redis.call('HGET', KEYS[8], 'care') or '0') - time[1] * 1000000 - time[2])
return { 'open', now, begun, tonumber(generation), tonumber(base), waits, since, stats[2] or '', text,
  care, company, tonumber(stats[3] or '0') }
