-- Merge the cookies of a visit into the jars of a job, one jar for each domain: of two writers of one cookie the later
-- wins, whoever comes first. A cookie that has expired stays for a while as the note of its removal. Of a job that is not
-- here nothing is kept.
--
-- KEYS 1 stats, 2 domains with a jar, then the jars
-- ARGV 1 most cookies of a jar, 2 how long a removal is noted (ms), then for each cookie: the number of its jar (from 1),
--      its domain, its field, its JSON
-- Returns how many were taken.
if redis.call('HEXISTS', KEYS[1], 'created') == 0 then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local taken, touched = 0, {}
for i = 3, #ARGV, 4 do
  local jar, domain, field, cookie = KEYS[2 + tonumber(ARGV[i])], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local old = redis.call('HGET', jar, field)
  if not old or cjson.decode(old).t <= cjson.decode(cookie).t then
    redis.call('HSET', jar, field, cookie)
    redis.call('SADD', KEYS[2], domain)
    touched[jar] = true
    taken = taken + 1
  end
end
for jar in pairs(touched) do
  local all, kept = redis.call('HGETALL', jar), {}
  for i = 1, #all, 2 do
    local c = cjson.decode(all[i + 1])
    if c.e and c.e <= now and c.t + ARGV[2] <= now then
      redis.call('HDEL', jar, all[i])
    else
      kept[#kept + 1] = { all[i], c.t }
    end
  end
  table.sort(kept, function(a, b) if a[2] ~= b[2] then return a[2] > b[2] end return a[1] < b[1] end)
  for i = tonumber(ARGV[1]) + 1, #kept do redis.call('HDEL', jar, kept[i][1]) end
end
return taken
