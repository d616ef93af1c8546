-- Note what came of fetching robots.txt, and let those in who wait for it.
--
-- ARGV 1 host, 2 visit that fetched it, 3 what: 'known' or 'unavailable', 4 how long that holds in µs, 5 what to keep
-- Returns {now}
local now = clock()
local h = load(ARGV[1])
local lasts = tonumber(ARGV[4])
local KINDS = { file = 1, all = 2, lost = 3 } -- see report.lua
local kind = ARGV[3] ~= 'known' and 4 or KINDS[string.match(ARGV[5], '^%S+ (%a+)')] or 0
call('HSET', h.key, 'robots_kind', kind)
local visit = call('HGET', h.visits, ARGV[2])
if visit then
  local report = figures(string.match(visit, '(%S+)$'), h.name)
  report.robots_reads, report.robots_kind, report.robots_at = report.robots_reads + 1, kind, math.floor(now / SECOND)
  keep(report)
end
if ARGV[3] == 'known' then
  call('SET', h.key .. ':robots', ARGV[5], 'PX', int(lasts / 1000 + 60000))
  call('HDEL', h.key, 'robots_down', 'robots_try', 'robots_tries')
  call('HSET', h.key, 'robots_at', int(now), 'robots_exp', int(now + lasts))
  h.robots_at, h.robots_exp, h.robots_down = now, now + lasts, 0
  if h.down == 0 then call('DEL', h.since) end
else
  local tries = call('HINCRBY', h.key, 'robots_tries', 1)
  if h.robots_down == 0 then call('HSET', h.key, 'robots_down', int(now)) end
  h.robots_try = now + math.min(lasts * 2 ^ (tries - 1), 1800 * SECOND)
  call('HSET', h.key, 'robots_try', int(h.robots_try))
  heed(h, h.robots_try + CARE)
end
if h.scout == ARGV[2] then
  h.scout = ''
  call('HDEL', h.key, 'scout')
end
summon(h, now)
return { int(now) }
