-- Lease further send times for a visit.
--
-- ARGV 1 site, 2 visit, 3 how many (0: it asks for permits alone), 4 permits that the visit could use
-- Returns {now, 'times', interval, burst, conns, tat, permits, send times…}, {now, 'later', when} when the next is too far
--      ahead for a visit to wait, or the visit is old and others wait; {now, 'left'} when the visit is not known (any more)
local now = clock()
local h = load(ARGV[1])
local visit = call('HGET', h.visits, ARGV[2])
if not visit then return { int(now), 'left' } end
local rate, burst, conns = limits(h)
local every = interval(h, rate, now)
local at = send_at(h, every, burst, now)
local since = tonumber(string.match(visit, '^%d+ (%d+)'))
local permits, rest = string.match(visit, '^(%d+)( .*)$')
local n, need = tonumber(ARGV[3]), tonumber(ARGV[4])
permits = tonumber(permits)
if n > 0 and (at > now + FAR or now - since > LIFE and call('ZCARD', h.line) > 0) then
  return { int(now), 'later', int(at) }
end
-- A visit that was let in with what was just free takes what has become free since, unless another was called to it.
if permits < need and (h.called == '' or now >= h.called_at + NET) then
  local more = math.min(need - permits, room_beside(h, conns))
  if more > 0 then
    permits = permits + more
    call('HSET', h.visits, ARGV[2], permits .. rest)
  end
end
if now - since < SECOND / 2 then n = short(permits, n, need, conns, every) end -- those before it are still leaving
local times = lease(h, every, burst, math.min(n, 64), now)
return { int(now), 'times', int(every), burst, conns, int(h.tat), permits, unpack(times) }
