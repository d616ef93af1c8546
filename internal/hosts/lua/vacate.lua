-- End the visits of batches whose worker is dead.
--
-- ARGV batches
-- Returns {now, how many visits were ended}
local now = clock()
local n = 0
for _, batch in ipairs(ARGV) do
  local site, visit = string.match(call('HGET', VISITING, batch) or '', '^(%S+) (%S+)$')
  if site then
    local h = load(site)
    local value = call('HGET', h.visits, visit)
    -- When the batch is worked again already its new delivery ends the old visit itself.
    if value and not asynq_alive(string.match(value, '^%d+ %d+ (%S+)'), batch, now) then
      vacate(h, visit, now)
      n = n + 1
    end
    summon(h, now)
  end
end
return { int(now), n }
