-- Note how far large bodies are, and in the job's figures that it has any: begin.lua tells workers, who ask only then.
--
-- KEYS 1 stats, 2 large
-- ARGV request, JSON, request, JSON, ...
-- Returns 1, or 0 when there is no such job.
if redis.call('HEXISTS', KEYS[1], 'created') == 0 then return 0 end
redis.call('HSET', KEYS[1], 'large', 1)
redis.call('HSET', KEYS[2], unpack(ARGV))
return 1
