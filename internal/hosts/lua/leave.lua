-- Give permits back, or end a visit, and call the next in line.
--
-- ARGV 1 site, 2 visit, 3 permits to give back (-1: the visit ends), 4 what its unspent send times cost in µs, 5 tat after
--      the last of them was leased, 6 exchanges that went well: all is well if the visit began after the last that did not,
--      7 permits it had before (0: not told), then spans and how many exchanges were begun in each
-- Returns {now, when to sweep (0: others will)}
local now = clock()
local h = load(ARGV[1])
local visit = call('HGET', h.visits, ARGV[2])
if not visit then return { int(now), '0' } end
local unspent = tonumber(ARGV[4])
if unspent > 0 and call('HGET', h.key, 'tat') == ARGV[5] then -- nobody has leased after them
  h.tat = h.tat - unspent
  call('HSET', h.key, 'tat', int(h.tat))
end
local since = tonumber(string.match(visit, '^%d+ (%d+)'))
if tonumber(ARGV[6]) > 0 and since > h.bad_at then heal(h) end
if ARGV[8] then
  local job, host = parts(h, string.match(visit, '^%d+ %d+ %S+ %S+ (.+)$'))
  local report = figures(job, host)
  terms(report, robots_of(h, host), limits(h))
  for i = 8, #ARGV, 2 do began(report, tonumber(ARGV[i]), tonumber(ARGV[i + 1])) end
  keep(report)
end
local back, had = tonumber(ARGV[3]), tonumber(ARGV[7])
if back < 0 then
  vacate(h, ARGV[2], now)
elseif back > 0 then
  local permits, rest = string.match(visit, '^(%d+)( .*)$')
  local kept = math.max(0, (had > 0 and had or permits) - back) -- so that a repeated call gives back no more
  call('HSET', h.visits, ARGV[2], int(math.min(permits, kept)) .. rest)
end
summon(h, now)
return { int(now), int(LOOK) }
