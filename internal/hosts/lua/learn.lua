-- Note what an exchange taught about a site, for everybody.
--
-- ARGV 1 site, 2 host, 3 what: 'asked' (the server named a pause), 'overload' (429 or 503 without one), 'failed' (no answer
--      came) or 'ok', 4 the pause in µs, already capped, 5 job that was taught
-- Returns {now, until}
local now = clock()
local h = load(ARGV[1])
local what, pause = ARGV[3], tonumber(ARGV[4])
local report = what ~= 'ok' and figures(ARGV[5], ARGV[2])

local function slower()
  if now - h.slow_at < SECOND and h.slow > 1 then return end -- one overload, many answers
  call('HSET', h.key, 'slow', string.format('%.3f', math.min(8, 2 * pace(h, now))), 'slow_at', int(now))
end

local function open() -- the circuit
  h.opened = math.min(h.opened + 1, 16)
  call('HSET', h.key, 'opened', h.opened, 'fails', 0)
  cool(h, now + math.min(30 * SECOND * 2 ^ (h.opened - 1), 900 * SECOND), now)
  report.opened = report.opened + 1
end

if what == 'ok' then
  heal(h)
  summon(h, now)
  return { int(now), int(h['until']) }
end
if now - math.max(h.bad_at, h['until']) > CARE then heal(h) end -- what was wrong is long ago
if h.down == 0 then call('HSET', h.key, 'down', int(now)) end
call('HSET', h.key, 'bad_at', int(now))
heed(h, now + CARE)
if what ~= 'failed' then call('HDEL', h.key, 'fails', 'opened') end -- it did answer
if what == 'asked' then
  report.asked, report.asked_longest = report.asked + 1, math.max(report.asked_longest, pause / 1000)
  report.kept = report.kept + math.max(0, now + pause - math.max(now, h['until'])) / 1000
  cool(h, now + pause, now)
  slower()
elseif what == 'overload' then
  report.overloads = report.overloads + 1
  if h['until'] <= now then
    cool(h, now + math.min(SECOND * 2 ^ h.busy, 10 * SECOND), now)
    call('HSET', h.key, 'busy', math.min(h.busy + 1, 16))
  end
  slower()
else
  report.silent = report.silent + 1
end
if what == 'failed' and h['until'] <= now then
  if h.opened > 0 or h.fails + 1 >= 5 then
    open()
  else
    call('HSET', h.key, 'fails', h.fails + 1)
  end
end
linger(h, now)
keep(report)
return { int(now), int(h['until']) }
