-- Note how far large bodies are, and in the job's figures that it has any: begin.lua tells workers, who ask only then.
-- A note may come late. Of a batch that is not open, and so is recorded or has left for another, nothing is noted; nor is
-- what a worker saw before it noted what is there.
--
-- KEYS 1 stats, 2 large, 3 open
-- ARGV request, its batch, JSON, request, its batch, JSON, ...
-- Returns how many were noted.
if redis.call('HEXISTS', KEYS[1], 'created') == 0 then return 0 end
local function stale(old, new)
  if not old then return false end
  old, new = cjson.decode(old), cjson.decode(new)
  return old.worker == new.worker and (old.at > new.at or old.at == new.at and old.cut == true)
end
local noted = 0
for i = 1, #ARGV, 3 do
  local request, batch, note = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if redis.call('HEXISTS', KEYS[3], batch) == 1 and not stale(redis.call('HGET', KEYS[2], request), note) then
    redis.call('HSET', KEYS[2], request, note)
    noted = noted + 1
  end
end
if noted > 0 then redis.call('HSET', KEYS[1], 'large', 1) end
return noted
