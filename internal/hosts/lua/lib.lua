-- What the scripts of this package share. asynq_call and asynq_alive come before it: see redis.go.
--
-- Limits are kept for a site: a host, or with --per-address "@" and the address of all hosts that resolve to it. What is of
-- robots.txt and what goes into reports is each host's own.
--
-- fetchfleet:host:SITE          HASH what is known of a site; times in µs by Redis
--   until        nobody sends before: a cool-down, or an open circuit
--   tat          theoretical arrival time of the token bucket (GCRA): when the last send time given out is paid for
--   slow slow_at how many times slower than its limits the site is taken, and when that was said
--   busy         answers in a row that asked for a pause
--   fails        exchanges in a row that brought no answer
--   opened       how often in a row its circuit was opened, 0 = closed
--   down bad_at  since when no exchange has gone well, and when one last went badly
--   care         until when jobs without limits have to ask here, too: somebody has limits, or the site was in trouble
--   checked      when its visits were last checked for dead workers
--   called called_at   the batch at the head of the line that was called last, and when; '' = it has answered
--   turn         turn of the batch that was let in last
--   scout        visit that is fetching a robots.txt; nobody else enters the site meanwhile, whichever host it is of
-- fetchfleet:host:HOST          the same key where the host is the site; where it is not, a HASH of these alone
--   robots_at robots_exp robots_try robots_down   when robots.txt was read last, until when that holds, when it is to be
--                tried again, since when it could not be had
--   robots_kind robots_tries   what it was (see report.lua), how often in a row it could not be had
-- fetchfleet:host:HOST:robots   STRING its robots.txt
-- fetchfleet:host:HOST:address  STRING the address of the host's site, for the whole fleet: see addresses.go
-- fetchfleet:host:SITE:line     ZSET batches that wait, by (priority of the queue, turn of the share)
-- fetchfleet:host:SITE:visits   HASH visit → "PERMITS SINCE QUEUE BATCH SHARE"
-- fetchfleet:host:SITE:jobs     HASH share with work here → "BATCHES RATE BURST CONNS TURN". A share is "JOB" where the host
--                               is the site, else "JOB HOST": the hosts of a site take turns as jobs do
-- fetchfleet:host:SITE:limits   HASH "RATE BURST CONNS" → how many shares have them; only of addresses, which may have
--                               thousands of hosts: going through all their shares would cost each call milliseconds
-- fetchfleet:host:SITE:since    HASH share → when it first asked while the site was in trouble: its patience begins then, so
--                               that a replay finds out for itself
-- fetchfleet:hosts:due          ZSET sites with a line, by when they are to be looked at (ms)
-- fetchfleet:hosts:waiting      HASH batch in a line → "QUEUE SINCE ROBOTS CAME SITE SHARE": since when, whether it needs
--                               robots.txt (0 or 1), when it asked last, and whose line it is
-- fetchfleet:hosts:shut         HASH queue that batches were called from and did not come → until when it is passed over
-- fetchfleet:hosts:visiting     HASH batch visiting → "SITE VISIT"
local call = redis.call
local DUE, WAITING, VISITING = 'fetchfleet:hosts:due', 'fetchfleet:hosts:waiting', 'fetchfleet:hosts:visiting'
local SHUT = 'fetchfleet:hosts:shut'
local SECOND = 1000000
local FAR = 3 * SECOND         -- who has to wait longer than this leaves its slot
local HORIZON = 7 * SECOND     -- so far apart the first and the last of the send times are that are given out at once
local NET = 5 * SECOND         -- a call without an answer is lost after this
local LIFE = 60 * SECOND       -- a visit older than this makes room when others wait
local FORGET = 86400 * 1000    -- ms after which nothing is known of a site that nobody asks for
local SHY = 30 * SECOND        -- for this long a queue is passed over that did not answer a call
local CARE = 600 * SECOND      -- after a site was left alone jobs without limits ask here for this long
local ROBOTS = { 'robots_at', 'robots_exp', 'robots_try', 'robots_down' }
local FIELDS = { 'until', 'tat', 'slow', 'slow_at', 'busy', 'fails', 'opened', 'down', 'called_at', 'turn', 'bad_at', 'care',
  'checked', 'robots_at', 'robots_exp', 'robots_try', 'robots_down', 'called', 'scout' }

local function int(x) return string.format('%.0f', x) end

local function clock()
  local t = call('TIME')
  return t[1] * SECOND + t[2]
end

local function load(site)
  local key = 'fetchfleet:host:' .. site
  local h = { name = site, key = key, line = key .. ':line', visits = key .. ':visits', jobs = key .. ':jobs',
    since = key .. ':since', hosts = {} }
  if string.sub(site, 1, 1) == '@' then h.limits = key .. ':limits' end
  for i, value in ipairs(call('HMGET', key, unpack(FIELDS))) do
    h[FIELDS[i]] = i <= 17 and (tonumber(value) or 0) or (value or '')
  end
  return h
end

-- robots_of is what is known of the robots.txt of one of the site's hosts: the site itself where that is the host, or else
-- read once in a script.
local function robots_of(h, host)
  if host == h.name then return h end
  local r = h.hosts[host]
  if r then return r end
  r = { key = 'fetchfleet:host:' .. host }
  for i, value in ipairs(call('HMGET', r.key, unpack(ROBOTS))) do r[ROBOTS[i]] = tonumber(value) or 0 end
  h.hosts[host] = r
  return r
end

-- share is what a job has at a host of the site, by name; parts takes it apart.
local function share(h, job, host) return host == h.name and job or job .. ' ' .. host end

local function parts(h, name)
  local job, host = string.match(name, '^(%S+) ?(%S*)$')
  return job, host == '' and h.name or host
end

-- waits is what is noted of a batch in a line, or nil.
local function waits(note)
  local queue, since, robots, came, site, rest = string.match(note or '', '^(%S+) (%d+) (%d) (%d+) (%S+) (.+)$')
  if not queue then return nil end
  return { queue = queue, since = tonumber(since), robots = robots == '1', came = tonumber(came), site = site, share = rest }
end

-- limits are the strictest of the jobs with work at the site: rate, burst, conns. A burst is one of a rate.
local function limits(h)
  local rate, burst, conns = 0, 0, 0
  local form = h.limits and '^(%S+) (%d+) (%d+)$' or '^%d+ (%S+) (%d+) (%d+)'
  for _, value in ipairs(h.limits and call('HKEYS', h.limits) or call('HVALS', h.jobs)) do
    local r, b, c = string.match(value, form)
    r, b, c = tonumber(r), tonumber(b), tonumber(c)
    if r > 0 and (rate == 0 or r < rate) then rate = r end
    if r > 0 and (burst == 0 or b < burst) then burst = b end
    if c > 0 and (conns == 0 or c < conns) then conns = c end
  end
  return rate, math.max(burst, 1), conns
end

-- pace is how many times slower the site is taken now: it recovers by a quarter every ten seconds.
local function pace(h, now)
  if h.slow <= 1 then return 1 end
  return math.max(1, h.slow / 1.25 ^ ((now - h.slow_at) / (10 * SECOND)))
end

-- interval between two send times, 0 = none are needed. What is added keeps windows within the limit although requests do
-- not take equally long to arrive. Without a limit a site that was overloaded is taken at no more than 20 a second.
local function interval(h, rate, now)
  local slow = pace(h, now)
  if rate > 0 then return 1.018 * SECOND / rate * slow end
  if slow > 1 then return SECOND / 20 * slow end
  return 0
end

-- send_at is the next send time. A site that is taken slower gets no bursts.
local function send_at(h, every, burst, now)
  local at = math.max(now, h['until'])
  if pace(h, now) > 1 then burst = 1 end
  if every > 0 then at = math.max(at, h.tat - (burst - 1) * every) end
  return at
end

-- lease gives out up to n send times, none of which is far ahead.
local function lease(h, every, burst, n, now)
  local times, last = {}, now + FAR
  while every > 0 and #times < n do
    local at = send_at(h, every, burst, now)
    if at > last then break end
    if #times == 0 then last = at + HORIZON end
    times[#times + 1] = int(at)
    h.tat = math.max(at, h.tat) + every
  end
  if #times > 0 then call('HSET', h.key, 'tat', int(h.tat)) end
  return times
end

-- unheld is how many permits no visit has, math.huge where they are not limited.
local function unheld(h, conns)
  if conns == 0 then return math.huge end
  for _, value in ipairs(call('HVALS', h.visits)) do conns = conns - tonumber(string.match(value, '^%d+')) end
  return conns
end

-- one_only says that a site whose circuit was open, and one where a robots.txt is being fetched, has room for one visit.
local function one_only(h) return h.opened > 0 or h.scout ~= '' end

-- room_beside is how many permits are free for visits that are there.
local function room_beside(h, conns)
  if one_only(h) then return 0 end
  return unheld(h, conns)
end

-- room is how many permits are free for further visits.
local function room(h, conns)
  if one_only(h) and call('HLEN', h.visits) > 0 then return 0 end
  return unheld(h, conns)
end

-- short is how many of n send times a visit gets that could use more permits: where they follow one another fast it is
-- to ask for them soon.
local function short(permits, n, need, conns, every)
  if conns > 0 and permits < math.min(need, conns) and every < SECOND / 10 then return math.min(n, math.max(1, permits)) end
  return n
end

-- recount has the limits of an address follow those of one share; nil = it has no work here.
local function recount(h, before, after)
  if not h.limits or before == after then return end
  if before and call('HINCRBY', h.limits, before, -1) <= 0 then call('HDEL', h.limits, before) end
  if after then call('HINCRBY', h.limits, after, 1) end
end

-- book counts a batch of a share that comes (+1) or goes (-1).
local function book(h, name, n, rate, burst, conns)
  local batches, turn, before = 0, 0, nil
  local value = call('HGET', h.jobs, name)
  if value then
    local b, r, u, c, t = string.match(value, '^(%d+) (%S+) (%d+) (%d+) (%d+)')
    batches, turn, before = tonumber(b), tonumber(t), r .. ' ' .. u .. ' ' .. c
    if not rate then rate, burst, conns = r, u, c end
  end
  batches = batches + n
  if batches <= 0 or not rate then
    call('HDEL', h.jobs, name)
    recount(h, before, nil)
    return 0
  end
  local terms = rate .. ' ' .. burst .. ' ' .. conns
  call('HSET', h.jobs, name, batches .. ' ' .. terms .. ' ' .. int(turn))
  recount(h, before, terms)
  return turn
end

-- linger has what is known of the site kept for a day from now, or from when it may be visited again.
local function linger(h, now)
  local ms = int(FORGET + math.max(0, h['until'] - now) / 1000)
  for _, key in ipairs({ h.key, h.visits, h.jobs, h.line, h.since, h.limits }) do call('PEXPIRE', key, ms) end
end

local function reserve(h, batch, now)
  h.called, h.called_at = batch, now
  call('HSET', h.key, 'called', batch, 'called_at', int(now))
end

-- drop takes a batch that is gone out of the line.
local function drop(h, batch, name, now)
  call('ZREM', h.line, batch)
  call('HDEL', WAITING, batch)
  book(h, name, -1)
  if h.called == batch then reserve(h, '', now) end
end

-- vacate ends a visit, by whoever had it.
local function vacate(h, visit, now)
  local value = call('HGET', h.visits, visit)
  if not value then return false end
  local batch, name = string.match(value, '^%d+ %d+ %S+ (%S+) (.+)$')
  call('HDEL', h.visits, visit)
  if call('HGET', VISITING, batch) == h.name .. ' ' .. visit then call('HDEL', VISITING, batch) end
  book(h, name, -1)
  if h.scout == visit then
    h.scout = ''
    call('HDEL', h.key, 'scout')
  end
  linger(h, now)
  return true
end

-- census ends the visits of batches that nobody works any more, and of earlier deliveries, every few seconds.
local function census(h, now)
  if now - h.checked < NET then return end
  h.checked = now
  call('HSET', h.key, 'checked', int(now))
  local visits = call('HGETALL', h.visits)
  for i = 1, #visits, 2 do
    local queue, batch = string.match(visits[i + 1], '^%d+ %d+ (%S+) (%S+)')
    if call('HGET', VISITING, batch) ~= h.name .. ' ' .. visits[i] or not asynq_alive(queue, batch, now) then
      vacate(h, visits[i], now)
    end
  end
end

local LOOK = 0 -- when something is to be done for a site that this script looked at; 0 = nothing that others do not see to

-- due has the site looked at then. A net is only for calls that are lost.
local function due(h, at, net)
  if not net and (LOOK == 0 or at < LOOK) then LOOK = at end
  call('ZADD', DUE, int(math.ceil(at / 1000)), h.name)
end

-- pick calls batches in line from a position on and returns the first that should come, or nil and when to look again. It
-- passes over those that wait for robots.txt, those of queues that are shut unless all is set, and those that have been
-- active for long: they are about to ask, or their worker died as they stood in line. With flood all are called.
local function pick(h, now, from, all, flood)
  local look, seen = math.huge, 0
  local shut = {}
  while seen < 1024 do
    local line = call('ZRANGE', h.line, from, from + 31)
    if #line == 0 then return nil, look end
    for i, note in ipairs(call('HMGET', WAITING, unpack(line))) do
      local w = waits(note)
      local r = w and w.robots and robots_of(h, select(2, parts(h, w.share)))
      if w and shut[w.queue] == nil then shut[w.queue] = tonumber(call('HGET', SHUT, w.queue) or '0') > now end
      local state
      if not w then
        state = 'gone'
      elseif r and r.robots_exp <= now and r.robots_try > now then
        look = math.min(look, r.robots_try)
      elseif all or not shut[w.queue] then
        state = asynq_call(w.queue, line[i], now)
      end
      if state == 'gone' then
        drop(h, line[i], w and w.share or '', now)
      else
        from = from + 1
      end
      if state == 'active' then
        if now - w.came < SECOND then return nil, now + SECOND / 20 end -- its deferral is not written yet
        look = math.min(look, now + SECOND / 4)
      elseif state and state ~= 'gone' and not flood then
        return line[i]
      end
    end
    seen = seen + #line
  end
  return nil, now
end

-- summon calls the first in line if the site has room for it, and says when to look again. A batch that was called and
-- did not come within NET is passed over, and its queue for a while: it may be paused, or served by nobody.
local function summon(h, now)
  if call('ZCARD', h.line) == 0 then
    call('ZREM', DUE, h.name)
    return
  end
  census(h, now)
  local rate, burst, conns = limits(h)
  local every = interval(h, rate, now)
  local at = send_at(h, every, burst, now)
  if h['until'] > now then return due(h, math.max(h['until'], at - FAR / 2)) end
  if at > now + FAR then return due(h, at - FAR / 2) end
  if room(h, conns) < 1 then return due(h, now + NET, true) end
  local flood = conns == 0 and every == 0 and not one_only(h) -- nothing to wait for: everybody may come
  local after = 0
  if h.called ~= '' and not flood then
    if now < h.called_at + NET then return due(h, h.called_at + NET, true) end
    local rank = call('ZRANK', h.line, h.called)
    if rank then
      call('HSET', SHUT, string.match(call('HGET', WAITING, h.called) or '-', '^%S+'), int(now + SHY))
      after = rank + 1
    end
  end
  local batch, look = pick(h, now, 0, false, flood)
  if not batch and look == math.huge then batch, look = pick(h, now, after, true, flood) end
  if not batch and look == math.huge and after > 0 then batch, look = pick(h, now, 0, true, flood) end
  if batch then
    reserve(h, batch, now)
    return due(h, now + NET, true)
  elseif call('ZCARD', h.line) == 0 then
    call('ZREM', DUE, h.name)
    return
  end
  due(h, math.min(look, now + SECOND))
end

-- abandon takes what a batch has at another site away, because its host is of this one now.
local function abandon(site, now, take)
  local other = load(site)
  take(other)
  summon(other, now)
end

-- calm ends the patience of those whose host nothing is wrong with any more.
local function calm(h)
  if h.down > 0 then return end
  for _, name in ipairs(call('HKEYS', h.since)) do
    local _, host = parts(h, name)
    if robots_of(h, host).robots_down == 0 then call('HDEL', h.since, name) end
  end
end

-- heal forgets that things did not go well.
local function heal(h)
  if h.down == 0 and h.busy == 0 and h.fails == 0 and h.opened == 0 then return end
  call('HDEL', h.key, 'down', 'busy', 'fails', 'opened')
  h.down, h.busy, h.fails, h.opened = 0, 0, 0, 0
  calm(h)
end

-- heed has jobs without limits ask here until then.
local function heed(h, until_)
  if until_ <= h.care then return end
  h.care = until_
  call('HSET', h.key, 'care', int(until_))
end

-- cool keeps everybody away from the site until a time, and says so to those who visit it.
local function cool(h, until_, now)
  if until_ <= h['until'] then return end
  h['until'] = until_
  call('HSET', h.key, 'until', int(until_))
  heed(h, until_ + CARE)
  call('PUBLISH', 'fetchfleet:hosts', h.name .. ' ' .. int(until_ - now))
end
