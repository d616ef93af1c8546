-- What the report of a job says of a host, counted by scripts that run anyway.
--
-- fetchfleet:hosts:report:JOB    HASH host → the figures below, in this order, with spaces between them
--
-- One hash for a job and not one for each of its hosts: a figure costs a digit or two and a host about 160 bytes, where a
-- key of its own with named fields and a time to live takes 330; a job has one time to live; and who reads the
-- report walks it in pages. The price is that a figure is read and written with all others of its host, which is one
-- HGET and one HSET of sixty bytes. New figures go to the end, before the spans: a reader takes what is missing for 0.
--
--   requests                 exchanges begun, redirects and robots.txt included
--   waits waited longest     how often a batch joined the line, and for how long those stood there that came in (ms)
--   peak                     the most exchanges in one span of ten seconds
--   asked asked_longest kept answers that named a pause, the longest (ms), for how long nothing was sent for them (ms)
--   overloads silent opened  other answers 429 and 503, exchanges without an answer, how often the circuit was opened
--   refused                  requests that robots.txt did not allow
--   robots_reads robots_kind robots_at   how often this job fetched robots.txt; what is known of it (1 it has rules,
--                            2 there is none, 3 no answer, 4 refused for now, 0 something else) and since when (s)
--   rate burst conns         the limits in force when the job came last
-- and then NUMBER:COUNT for each of the last spans, oldest first
local FIGURES = { 'requests', 'waits', 'waited', 'longest', 'peak', 'asked', 'asked_longest', 'kept', 'overloads', 'silent',
  'opened', 'refused', 'robots_reads', 'robots_kind', 'robots_at', 'rate', 'burst', 'conns' }
local FORM = '^' .. string.rep('(%S+) ', #FIGURES - 1) .. '(%S+)(.*)$'
local PRINT = '%.0f %.0f %.0f %.0f %.0f %.0f %.0f %.0f %.0f %.0f %.0f %.0f %.0f %.0f %.0f %.6g %.0f %.0f'
local SPANS = 12            -- that may still grow: visits tell what they began when they end
local REMEMBER = 30 * 86400 -- s

-- figures reads those of a host. All in one match, because this runs for every visit; a text that is shorter is an older
-- worker's.
local function figures(job, host)
  local c = { key = 'fetchfleet:hosts:report:' .. job, host = host, spans = {} }
  c.text = call('HGET', c.key, host) or ''
  local words = { string.match(c.text, FORM) }
  if #words == 0 then
    for word in string.gmatch(c.text, '%S+') do words[#words + 1] = word end
  end
  for i, name in ipairs(FIGURES) do c[name] = tonumber(words[i]) or 0 end
  for number, count in string.gmatch(words[#FIGURES + 1] or '', '(%d+):(%d+)') do
    c.spans[#c.spans + 1] = { tonumber(number), tonumber(count) }
  end
  return c
end

local function keep(c)
  local words = {}
  for i, name in ipairs(FIGURES) do words[i] = c[name] end
  local text = string.format(PRINT, unpack(words))
  for i = math.max(1, #c.spans - SPANS + 1), #c.spans do
    text = text .. string.format(' %.0f:%.0f', c.spans[i][1], c.spans[i][2])
  end
  if text == c.text then return end
  call('HSET', c.key, c.host, text)
  call('EXPIRE', c.key, REMEMBER)
end

-- terms notes the limits in force, and the robots.txt that is known of the host, whoever fetched it: see robots_of.
local function terms(c, r, rate, burst, conns)
  c.rate, c.burst, c.conns = rate, burst, conns
  local at = math.floor(r.robots_at / SECOND)
  if at > c.robots_at then c.robots_at, c.robots_kind = at, tonumber(call('HGET', r.key, 'robots_kind') or '0') end
end

-- began counts exchanges of one span.
local function began(c, number, count)
  c.requests = c.requests + count
  local at = #c.spans + 1
  for i, s in ipairs(c.spans) do
    if s[1] == number then
      s[2] = s[2] + count
      c.peak = math.max(c.peak, s[2])
      return
    end
    if s[1] > number then
      at = i
      break
    end
  end
  table.insert(c.spans, at, { number, count })
  c.peak = math.max(c.peak, count)
end

-- came notes that a batch that stood in line since then does so no more.
local function came(c, since, now)
  local waited = (now - since) / 1000
  c.waited, c.longest = c.waited + waited, math.max(c.longest, waited)
end
