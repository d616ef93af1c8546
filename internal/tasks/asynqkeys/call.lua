-- asynq_hurry moves a pending task to the head of its queue, unless it is among the first few. It is looked for at both
-- ends alone, where tasks are that came back lately: going through a backlog of any length would hold up everybody. One
-- in the middle stays where it is.
local function asynq_hurry(pending, id)
  if redis.call('LPOS', pending, id, 'RANK', -1, 'MAXLEN', 8) then return end
  if redis.call('LPOS', pending, id, 'RANK', -1, 'MAXLEN', 500) then
    redis.call('LREM', pending, -1, id)
  elseif redis.call('LPOS', pending, id, 'MAXLEN', 500) then
    redis.call('LREM', pending, 1, id)
  else
    return
  end
  redis.call('RPUSH', pending, id) -- dequeue takes from the right
end

-- asynq_call puts a task that waits at the head of its queue's pending list. It answers with what it found: 'called' (it
-- was not pending before), 'pending', 'active', or 'gone' (there is no such task, or it has ended). now is in µs.
local function asynq_call(queue, id, now)
  local prefix = 'asynq:{' .. queue .. '}:'
  local state = redis.call('HGET', prefix .. 't:' .. id, 'state')
  if state == 'retry' or state == 'scheduled' then
    if redis.call('ZREM', prefix .. state, id) == 0 then return 'gone' end
    redis.call('RPUSH', prefix .. 'pending', id)
    redis.call('HSET', prefix .. 't:' .. id, 'state', 'pending', 'pending_since', string.format('%.0f', now) .. '000')
    return 'called'
  end
  if state == 'pending' then asynq_hurry(prefix .. 'pending', id) end
  if state == 'pending' or state == 'active' then return state end
  return 'gone'
end

-- asynq_alive tells whether a task is being worked by somebody whose lease has not run out.
local function asynq_alive(queue, id, now)
  local prefix = 'asynq:{' .. queue .. '}:'
  if redis.call('HGET', prefix .. 't:' .. id, 'state') ~= 'active' then return false end
  local lease = redis.call('ZSCORE', prefix .. 'lease', id)
  return lease and tonumber(lease) * 1000000 > now
end
