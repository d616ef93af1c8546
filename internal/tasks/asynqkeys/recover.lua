-- Put active tasks that no living worker owns back to the head of pending.
--
-- KEYS 1 active, 2 lease, 3 pending
-- ARGV 1 prefix of task keys, 2 Unix time in seconds below which a lease is dead, 3 how many at most
-- Returns the ids that were put back.
--
-- asynq renews the lease of an active task every 5 s to 30 s ahead, so a lease that ends soon has not been renewed
-- for long. An active entry without any lease is what a crash of Redis can leave; asynq never looks at those.
local back = {}
local function put_back(id)
  if redis.call('HGET', ARGV[1] .. id, 'state') == 'active' and redis.call('LREM', KEYS[1], 0, id) > 0 then
    redis.call('ZREM', KEYS[2], id)
    redis.call('RPUSH', KEYS[3], id)
    redis.call('HSET', ARGV[1] .. id, 'state', 'pending')
    back[#back + 1] = id
  end
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. ARGV[2], 'LIMIT', 0, ARGV[3])) do
  put_back(id)
end
if redis.call('LLEN', KEYS[1]) > redis.call('ZCARD', KEYS[2]) then
  for _, id in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
    if not redis.call('ZSCORE', KEYS[2], id) then put_back(id) end
  end
end
return back
