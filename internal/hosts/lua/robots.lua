-- Note what came of fetching robots.txt, and let those in who wait for it.
--
-- ARGV 1 site, 2 host, 3 visit that fetched it, 4 what: 'known' or 'unavailable', 5 how long that holds (µs), 6 what to keep
-- Returns {now, when to sweep (0: as usual)}
local now = clock()
local h, host = load(ARGV[1]), ARGV[2]
local r, lasts = robots_of(h, host), tonumber(ARGV[5])
local KINDS = { file = 1, all = 2, lost = 3 } -- see report.lua
local kind = ARGV[4] ~= 'known' and 4 or KINDS[string.match(ARGV[6], '^%S+ (%a+)')] or 0
call('HSET', r.key, 'robots_kind', kind)
local visit = call('HGET', h.visits, ARGV[3])
if visit then
  local report = figures(parts(h, string.match(visit, '^%d+ %d+ %S+ %S+ (.+)$')), host)
  report.robots_reads, report.robots_kind, report.robots_at = report.robots_reads + 1, kind, math.floor(now / SECOND)
  keep(report)
end
if ARGV[4] == 'known' then
  call('SET', r.key .. ':robots', ARGV[6], 'PX', int(lasts / 1000 + 60000))
  call('HDEL', r.key, 'robots_down', 'robots_try', 'robots_tries')
  call('HSET', r.key, 'robots_at', int(now), 'robots_exp', int(now + lasts))
  r.robots_at, r.robots_exp, r.robots_down = now, now + lasts, 0
  calm(h)
else
  local tries = call('HINCRBY', r.key, 'robots_tries', 1)
  if r.robots_down == 0 then call('HSET', r.key, 'robots_down', int(now)) end
  r.robots_try = now + math.min(lasts * 2 ^ (tries - 1), 1800 * SECOND)
  call('HSET', r.key, 'robots_try', int(r.robots_try))
  heed(h, r.robots_try + CARE)
end
if r ~= h then call('PEXPIRE', r.key, int(FORGET + lasts / 1000)) end -- whoever leaves sees to that of the site
if h.scout == ARGV[3] then
  h.scout = ''
  call('HDEL', h.key, 'scout')
end
summon(h, now)
return { int(now), int(LOOK) }
