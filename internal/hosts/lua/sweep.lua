-- Look at the sites whose time has come: call the first in line.
--
-- ARGV 1 how many sites at most, then job, host and how many requests its robots.txt did not allow
-- Returns {now, when to sweep again at the latest (0: as usual)}
local now = clock()
for i = 2, #ARGV, 3 do
  local report = figures(ARGV[i], ARGV[i + 1])
  report.refused = report.refused + tonumber(ARGV[i + 2])
  keep(report)
end
for _, site in ipairs(call('ZRANGEBYSCORE', DUE, '-inf', int(now / 1000), 'LIMIT', 0, ARGV[1])) do
  summon(load(site), now)
end
return { int(now), int(LOOK) }
