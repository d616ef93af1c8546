-- Ask for a visit: permits and first send times, or a place in line.
--
-- ARGV 1 host, 2 batch, 3 visit, 4 queue, 5 priority of the queue (0 first), 6 job, 7 permits wanted, 8 rate, 9 burst,
--      10 conns, 11 patience (µs, 0 = none), 12 whether robots.txt has to be known (0 or 1)
-- Returns {now, 'visit', permits, interval, burst, tat, slow, scout (1: this visit is to fetch robots.txt), probe (1: the
--      circuit was open), send times…}, {now, 'line', when the host is looked at next (0: by who leaves), when patience
--      ends (0: nothing is wrong)}, or {now, 'unavailable', 'host' or 'robots', since}
local host, batch, visit, queue, job = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[6]
local want, patience, obey = tonumber(ARGV[7]), tonumber(ARGV[11]), ARGV[12] == '1'
local now = clock()
local h = load(host)
local waiting = call('ZSCORE', h.line, batch)
local unknown = obey and h.robots_exp <= now
local function waits_no_more()
  local since = string.match(call('HGET', WAITING, batch) or '', '^%S+ %S+ (%d+)')
  local report = figures(job, host)
  came(report, tonumber(since or now), now)
  keep(report)
end

local again = call('HGET', h.visits, visit) -- the answer to an earlier call was lost
call('HDEL', SHUT, queue)
local before = call('HGET', VISITING, batch)
if before and before ~= host .. ' ' .. visit and string.match(before, '^%S+') == host then
  vacate(h, string.match(before, '%S+$'), now) -- an earlier delivery, whose worker is gone
end

-- What is wrong, since when, and until when nobody tries. Patience is that of the job: it begins when it first asked, so
-- that a replay finds out for itself; and nobody is given up who may try now.
local what, down, alone, ends = 'host', h.down, h['until'], 0
if unknown and h.robots_down > 0 then what, down, alone = 'robots', h.robots_down, h.robots_try end
if patience > 0 and down > 0 then
  call('HSETNX', h.since, job, int(now))
  down = math.max(down, tonumber(call('HGET', h.since, job)))
  if now - down > patience and alone > now and not again then
    if waiting then
      waits_no_more()
      drop(h, batch, job, now)
    end
    if call('HEXISTS', h.jobs, job) == 0 then call('HDEL', h.since, job) end
    summon(h, now)
    return { int(now), 'unavailable', what, int(down) }
  end
  ends = math.max(down + patience, now + SECOND)
end

local turn = job_counts(h, job, (waiting or again) and 0 or 1, ARGV[8], ARGV[9], ARGV[10])
local rate, burst, conns = limits(h)
local every = interval(h, rate, now)
local at = send_at(h, every, burst, now)
if (rate > 0 or conns > 0) and h.care < now + 60 * SECOND then heed(h, now + 150 * SECOND) end

local function stand_in_line()
  local since = now
  if waiting then
    since = tonumber(string.match(call('HGET', WAITING, batch) or '', '^%S+ %S+ (%d+)') or now)
  else
    turn = math.max(turn, h.turn) + 1
    call('ZADD', h.line, int(tonumber(ARGV[5]) * 1e12 + turn), batch)
    call('HSET', h.jobs, job, (string.gsub(call('HGET', h.jobs, job), '%d+$', int(turn))))
    local report = figures(job, host)
    report.waits = report.waits + 1
    terms(report, h, rate, burst, conns)
    keep(report)
  end
  call('HSET', WAITING, batch, queue .. ' ' .. job .. ' ' .. int(since) .. ' ' .. (unknown and 1 or 0) .. ' ' .. int(now))
  linger(h, now)
  if h.called == batch then reserve(h, '', now) end
  summon(h, now)
  return { int(now), 'line', int(LOOK), int(ends) }
end

local free = again and 0 or room(h, conns)
if not again then
  local called = h.called ~= '' and h.called ~= batch and now < h.called_at + NET and (conns > 0 or every > 0)
  local later = at > now + FAR or h['until'] > now or unknown and h.robots_try > now
  if later or free < 1 or called then return stand_in_line() end
end

local permits = again and tonumber(string.match(again, '^%d+')) or math.min(want, free, h.opened > 0 and 1 or want)
call('HSET', h.visits, visit, permits .. ' ' .. int(now) .. ' ' .. queue .. ' ' .. batch .. ' ' .. job)
call('HSET', VISITING, batch, host .. ' ' .. visit)
if waiting then
  h.turn = math.max(h.turn, tonumber(waiting) % 1e12)
  call('HSET', h.key, 'turn', int(h.turn))
  waits_no_more()
  call('ZREM', h.line, batch)
  call('HDEL', WAITING, batch)
end
if h.called == batch then reserve(h, '', now) end
local scout, probe = 0, 0
if unknown then
  h.scout, scout = visit, 1
  call('HSET', h.key, 'scout', visit)
end
if h.opened > 0 then probe = 1 end
local n = short(permits, probe == 1 and 1 or want, want, conns, every)
local times = lease(h, every, burst, math.min(n, 64), now)
summon(h, now)
return { int(now), 'visit', permits, int(every), burst, int(h.tat), int(pace(h, now) * 1000), scout, probe,
  unpack(times) }
