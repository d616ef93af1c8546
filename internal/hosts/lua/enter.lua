-- Ask for a visit: permits and first send times, or a place in line.
--
-- ARGV 1 site, 2 host, 3 batch, 4 visit, 5 queue, 6 priority of the queue (0 first), 7 job, 8 permits wanted, 9 rate,
--      10 burst, 11 conns, 12 patience (µs, 0 = none), 13 whether robots.txt has to be known (0 or 1)
-- Returns {now, 'visit', permits, interval, burst, conns, tat, slow, scout (1: this visit is to fetch robots.txt),
--      probe (1: the circuit was open), send times…}, {now, 'line', when the site is looked at next (0: by who leaves), when patience
--      ends (0: nothing is wrong), length of the line}, or {now, 'unavailable', 'host' or 'robots', since}
local host, batch, visit, queue, job = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[7]
local want, patience, obey = tonumber(ARGV[8]), tonumber(ARGV[12]), ARGV[13] == '1'
local now = clock()
local h = load(ARGV[1])
local mine, here = share(h, job, host), h.name .. ' ' .. visit
local note = waits(call('HGET', WAITING, batch))
local waiting = note and note.site == h.name and call('ZSCORE', h.line, batch)
if not waiting and note and note.site == h.name then note = nil end -- its line was forgotten
local robots = obey and robots_of(h, host)
local unknown = obey and robots.robots_exp <= now
local function waits_no_more()
  local report = figures(job, host)
  came(report, note.since, now)
  keep(report)
end

local again = call('HGET', h.visits, visit) -- the answer to an earlier call was lost
call('HDEL', SHUT, queue)
local before = call('HGET', VISITING, batch)
if before and before ~= here then -- an earlier delivery, whose worker is gone
  local site, old = string.match(before, '^(%S+) (%S+)$')
  if site == h.name then
    vacate(h, old, now)
  else
    abandon(site, now, function(other) vacate(other, old, now) end)
  end
end
if note and note.site ~= h.name then -- the host has moved to another address, and its line with it
  abandon(note.site, now, function(other) drop(other, batch, note.share, now) end)
end

-- What is wrong, since when, and until when nobody tries. Patience is that of the job: it begins when it first asked, so
-- that a replay finds out for itself; and nobody is given up who may try now.
local what, down, alone, ends = 'host', h.down, h['until'], 0
if unknown and robots.robots_down > 0 then what, down, alone = 'robots', robots.robots_down, robots.robots_try end
if patience > 0 and down > 0 then
  call('HSETNX', h.since, mine, int(now))
  down = math.max(down, tonumber(call('HGET', h.since, mine)))
  if now - down > patience and alone > now and not again then
    if note then waits_no_more() end
    if waiting then drop(h, batch, mine, now) end
    if call('HEXISTS', h.jobs, mine) == 0 then call('HDEL', h.since, mine) end
    summon(h, now)
    return { int(now), 'unavailable', what, int(down) }
  end
  ends = math.max(down + patience, now + SECOND)
end

local turn = book(h, mine, (waiting or again) and 0 or 1, ARGV[9], ARGV[10], ARGV[11])
local rate, burst, conns = limits(h)
local every = interval(h, rate, now)
local at = send_at(h, every, burst, now)
if (rate > 0 or conns > 0) and h.care < now + 60 * SECOND then heed(h, now + 150 * SECOND) end

local function stand_in_line()
  if not waiting then
    turn = math.max(turn, h.turn) + 1
    call('ZADD', h.line, int(tonumber(ARGV[6]) * 1e12 + turn), batch)
    call('HSET', h.jobs, mine, (string.gsub(call('HGET', h.jobs, mine), '%d+$', int(turn))))
  end
  if not note then
    local report = figures(job, host)
    report.waits = report.waits + 1
    terms(report, robots_of(h, host), rate, burst, conns)
    keep(report)
  end
  local since = note and note.since or now
  call('HSET', WAITING, batch,
    table.concat({ queue, int(since), unknown and 1 or 0, int(now), h.name, mine }, ' '))
  linger(h, now)
  if h.called == batch then reserve(h, '', now) end
  summon(h, now)
  return { int(now), 'line', int(LOOK), int(ends), call('ZCARD', h.line) }
end

local free = again and 0 or room(h, conns)
if not again then
  local called = h.called ~= '' and h.called ~= batch and now < h.called_at + NET and (conns > 0 or every > 0)
  local later = at > now + FAR or h['until'] > now or unknown and robots.robots_try > now
  if later or free < 1 or called then return stand_in_line() end
end

local permits = again and tonumber(string.match(again, '^%d+')) or math.min(want, free, h.opened > 0 and 1 or want)
call('HSET', h.visits, visit, permits .. ' ' .. int(now) .. ' ' .. queue .. ' ' .. batch .. ' ' .. mine)
call('HSET', VISITING, batch, here)
if note then waits_no_more() end
if waiting then
  h.turn = math.max(h.turn, tonumber(waiting) % 1e12)
  call('HSET', h.key, 'turn', int(h.turn))
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
return { int(now), 'visit', permits, int(every), burst, conns, int(h.tat), int(pace(h, now) * 1000), scout, probe,
  unpack(times) }
