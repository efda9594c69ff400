-- Admits judge calls: one step on the server, so that all processes see one state.
--
-- KEYS: limits (per endpoint and model), budget (per run), served (run -> calls admitted), hungry
-- (runs that were denied lately), cancelled (per run). ARGV: what to do (admit, failed or looked) and
-- its arguments. Times are the server's.

local L, B, V, H, C = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local arg = {unpack(ARGV, 2)}
local clock = redis.call('TIME'); local now = clock[1] + clock[2] / 1e6

-- A call a minute; who states less, or writes it here, would have us wait for ever and say nothing.
-- So would a pause beyond the longest that is ever set.
local SLOWEST, LONGEST_PAUSE = 1 / 60, 120

local function num(name) return tonumber(redis.call('HGET', L, name) or '') or 0 end
local function set(...) redis.call('HSET', L, ...) end
-- a time until when we wait
local function bounded(name)
  local till = num(name)
  if till > now + LONGEST_PAUSE then till = now + LONGEST_PAUSE; set(name, till) end
  return till
end
local function bnum(name) return tonumber(redis.call('HGET', B, name) or '') or 0 end

-- The rate is followed in epochs. What headers state is the ceiling; without headers it is found:
-- doubled while nothing is rejected, set to what was accepted when most is rejected, cut a little
-- below it otherwise, held there for a while, then raised ever faster. A cut is a question: are
-- fewer rejected at less? Asked until so many calls went out that EVIDENCE of them would be
-- rejected were nothing changed. If not half as many are, twice in a row, then rejections are the
-- endpoint's own noise, which no rate avoids, and the rate is what it was before. If fewer are, a
-- limit lies between the two rates. A cut is too deep where calls came late or waited: so the rate
-- goes a part of the WAY_BACK at once, and on towards what it was as long as nothing is rejected. A
-- fresh cut waits half a second for the calls that were under way.
local START, FLOOR, MARGIN, LAG = 200, 0.05, 0.985, 0.5
local EVIDENCE, LOOK_AFTER, MOST_NOISE, WAY_BACK = 4, 3, 0.3, 0.2
-- seconds and calls over which noise and the share of before are forgotten, seconds of the way back
local NOISE_FADES, SHARE_FADES, BACK_IN = 600, 200, 100

local function ceiling_of_headers()
  local rpm = num('rpm'); if rpm > 0 then return math.max(rpm / 60 * MARGIN, SLOWEST) end
  return 1e6
end

local function follow_rate()
  local top = ceiling_of_headers()
  local rate = num('rate'); if rate == 0 then rate = math.min(START, top) end
  rate = math.max(rate, SLOWEST)
  local ok, bad, at = num('e_ok'), num('e_bad'), num('e_at')
  if at == 0 then set('e_at', now); at = now end
  local dt, n = now - at, ok + bad
  if dt < 1 or n < 1 or (n < 20 and dt < 5) then
    rate = math.min(rate, top); set('rate', rate); return rate
  end
  local f, noise = bad / n, num('noise') * math.exp(-dt / NOISE_FADES)
  local learned, next_at = num('learned'), now
  -- what was tried: less than the rate where few ask
  local tried = math.min(rate, n / dt)
  -- the question that a cut asks: share rejected and rate before, how often cut, calls since
  local asked, before, cuts = num('asked'), num('before'), num('cuts')
  local since_n, since_bad = num('since_n'), num('since_bad')
  local all_n, all_bad = num('all_n'), num('all_bad')
  local function cut(to)
    rate = math.max(to, FLOOR); learned = rate; next_at = now + LAG; set('cut_at', now)
    since_n = 0; since_bad = 0
  end
  local function settled() asked = 0; cuts = 0; all_n = 0; all_bad = 0 end
  local function below_accepted()
    local accepted = n >= 20 and math.min(tried, ok / dt * 1.01) or tried * 0.98
    cut(math.max((f > 0.06 and 0.93 or 0.97) * accepted, tried * 0.5))
  end
  -- what is in question may be noise
  if f > 0.3 and n >= 20 and f > math.max(noise, math.min(asked, MOST_NOISE)) + 0.2 then
    settled(); asked = f; before = rate; cuts = 1
    -- answers take longer than rejections, so what was accepted is known a little late
    cut(math.max(ok / dt * 0.98, rate * 0.3))
  elseif asked > 0 then
    since_n = since_n + n; since_bad = since_bad + bad
    local share = since_bad / since_n
    if since_bad >= EVIDENCE and share > 2 * asked and share > 0.02 then
      asked = share; cuts = 1; below_accepted()
    elseif since_n * asked >= EVIDENCE and now - num('cut_at') >= LOOK_AFTER then
      if share - noise < 0.5 * (asked - noise) then
        rate = rate ^ (1 - WAY_BACK) * math.max(rate, before) ^ WAY_BACK
        learned = rate; settled()
      elseif cuts >= 2 then
        noise = math.min(MOST_NOISE, 1.5 * share); rate = before; learned = 0; settled()
      else
        -- to where a limit would reject none
        cuts = cuts + 1
        cut(math.min(rate, since_n / (now - num('cut_at') - LAG)) * (1 - share) * 0.93)
      end
    end
  elseif f > noise + 1.64 * math.sqrt(noise / n) then
    all_n = all_n + n; all_bad = all_bad + bad
    asked = all_bad / all_n; before = rate; cuts = 1; below_accepted()
  else
    local kept = math.exp(-n / SHARE_FADES)
    all_n = all_n * kept + n; all_bad = all_bad * kept + bad
    -- what the endpoint states is believed: soon there again, and no further
    if top < 1e6 then rate = rate + 0.2 * top * dt; learned = 0
    elseif learned == 0 then
      if num('denied') > 0 then rate = rate * math.min(4, 2 ^ (2 * dt)) end
    else
      local calm = now - num('cut_at') - 15
      if calm > 0 then rate = rate * (1 + math.min(0.2, 0.0005 * calm) * dt) end
      rate = rate + math.max(0, before - rate) * (1 - math.exp(-dt / BACK_IN))
      learned = math.max(learned, rate)
    end
  end
  rate = math.min(rate, top)
  set('rate', rate, 'noise', noise, 'learned', learned, 'asked', asked, 'before', before,
      'cuts', cuts, 'since_n', since_n, 'since_bad', since_bad, 'all_n', all_n, 'all_bad', all_bad,
      'e_ok', 0, 'e_bad', 0, 'e_at', next_at, 'denied', 0)
  return rate
end

local function note_headers(rpm, tpm)
  if rpm > 0 and rpm ~= num('rpm') then set('rpm', rpm) end
  if tpm > 0 and tpm ~= num('tpm') then set('tpm', tpm) end
end

local function settle(proc, released, spent)
  if released ~= 0 then
    local left = bnum('r:' .. proc) - released
    -- sums of floats leave crumbs; no call costs a billionth of a dollar
    if left < 1e-9 then left = 0 end
    redis.call('HSET', B, 'r:' .. proc, left)
  end
  if spent ~= 0 then redis.call('HINCRBYFLOAT', B, 'spent', spent) end
end

-- what a process that died had reserved may have been spent: after a while it counts as spent
local STALE = 300

local function reserved()
  local total, all = 0, redis.call('HGETALL', B)
  for k = 1, #all, 2 do
    if string.sub(all[k], 1, 2) == 'r:' then
      local proc, held = string.sub(all[k], 3), tonumber(all[k + 1])
      if held > 0 and now - bnum('s:' .. proc) > STALE then
        redis.call('HINCRBYFLOAT', B, 'spent', held)
        redis.call('HSET', B, 'r:' .. proc, 0)
      else total = total + held end
    end
  end
  return total
end

-- of n calls that wait, how many may go, after what was noted since the last message
local function admit()
  local run, proc, n = arg[1], arg[2], tonumber(arg[3])
  local released, spent, n_ok = tonumber(arg[4]), tonumber(arg[5]), tonumber(arg[6])
  local extra_tokens, rpm, tpm = tonumber(arg[7]), tonumber(arg[8]), tonumber(arg[9])
  local expire = tonumber(arg[10])
  for k = 1, 5 do redis.call('EXPIRE', KEYS[k], expire) end
  if redis.call('HEXISTS', B, 'spent') == 0 then return {'no_budget', 0, 0} end
  settle(proc, released, spent)
  redis.call('HSET', B, 's:' .. proc, now)
  note_headers(rpm, tpm)
  if n_ok > 0 then
    if now >= num('e_at') then redis.call('HINCRBY', L, 'e_ok', n_ok) end
    if num('fails') > 0 or num('down_since') > 0 then
      set('fails', 0, 'open_until', 0, 'open_n', 0, 'down_since', 0, 'half', 0)
    end
  end
  if redis.call('EXISTS', C) == 1 then return {'cancelled', 0, 0} end
  local rate = follow_rate()
  local tpm_now = num('tpm')
  local burst = math.max(1, math.min(rate * 0.4, 64))
  local level = tonumber(redis.call('HGET', L, 'level') or '') or math.min(burst, 64)
  local tburst = math.max(tpm_now / 60 * 0.5, 1)
  local tlevel = tonumber(redis.call('HGET', L, 'tlevel') or '') or tburst
  local passed = math.max(0, now - num('at'))
  if num('at') == 0 then passed = 0 end
  level = math.min(burst, level + rate * passed)
  tlevel = math.min(tburst, tlevel + tpm_now / 60 * MARGIN * passed - extra_tokens)
  local function keep() set('level', level, 'tlevel', tlevel, 'at', now) end
  if n == 0 then keep(); return {'ok', 0, 0} end

  -- the circuit: while the endpoint is down nobody calls; one process looks whether it is back
  local open_until = bounded('open_until')
  if open_until > 0 then
    keep()
    if now < open_until then return {'down', 0, math.ceil((open_until - now) * 1000)} end
    set('open_until', now + 15)
    return {'look', 0, 0}
  end
  if num('half') > 0 then
    if now < bounded('half') then keep(); return {'down', 0, 100} end
    set('half', now + 70); n = 1
  end
  local pause = bounded('pause_until')
  if now < pause then keep(); return {'wait', 0, math.ceil((pause - now) * 1000)} end

  -- fairness: nobody runs ahead of the hungriest other run by more than a quarter second of calls
  redis.call('ZREMRANGEBYSCORE', H, '-inf', now - 2)
  local mine = tonumber(redis.call('HGET', V, run) or '') or 0
  if not redis.call('ZSCORE', H, run) then
    mine = math.max(mine, tonumber(redis.call('HGET', V, ':now') or '') or 0)
  end
  local may = n
  for _, other in ipairs(redis.call('ZRANGE', H, 0, -1)) do
    if other ~= run then
      local theirs = tonumber(redis.call('HGET', V, other) or '') or 0
      may = math.min(may, math.max(0, math.floor(theirs + math.max(2, rate * 0.25) - mine)))
    end
  end

  local cap = tonumber(redis.call('HGET', B, 'cap') or '')
  local room = 1e300
  local held = 0
  if cap then held = reserved(); room = cap * (1 + 1e-9) - bnum('spent') - held end
  local granted, usd, state = 0, 0, 'ok'
  for k = 1, n do
    local tokens, most = tonumber(arg[9 + 2 * k]), tonumber(arg[10 + 2 * k])
    if granted >= may then state = 'wait'; break end
    if level < 1 or (tpm_now > 0 and tlevel <= 0) then state = 'wait'; break end
    if usd + most > room then
      if held + usd > 1e-9 then state = 'money_out' else state = 'budget' end
      break
    end
    granted = granted + 1; level = level - 1; tlevel = tlevel - tokens; usd = usd + most
  end
  if usd > 0 then redis.call('HINCRBYFLOAT', B, 'r:' .. proc, usd) end
  if granted > 0 then
    redis.call('HSET', V, run, mine + granted, ':now', mine + granted)
  end
  if state == 'wait' then
    redis.call('ZADD', H, now, run); redis.call('HSET', V, run, mine + granted)
    redis.call('HSET', L, 'denied', 1)
  else redis.call('ZREM', H, run) end
  keep()
  local wait = 50
  if state == 'wait' and granted < may then
    local token_wait = tpm_now > 0 and -tlevel / (tpm_now / 60) or 0
    wait = math.ceil(math.max((1 - level) / rate, token_wait) * 1000)
  end
  return {state, granted, wait}
end

-- a call failed; whether the circuit is open now
local function failed()
  local proc, kind, released, spent = arg[1], arg[2], tonumber(arg[3]), tonumber(arg[4])
  local retry_after, rpm, tpm = tonumber(arg[5]), tonumber(arg[6]), tonumber(arg[7])
  local open_after = tonumber(arg[8])
  settle(proc, released, spent)
  note_headers(rpm, tpm)
  if kind == 'limit' then
    if now >= num('e_at') then redis.call('HINCRBY', L, 'e_bad', 1) end
    redis.call('HINCRBY', L, 'rejected', 1)
    -- the endpoint is up; when most calls are rejected everybody waits as long as it asks
    set('fails', 0)
    if num('e_bad') >= 5 and num('e_bad') > num('e_ok') * 0.5 then
      set('pause_until', math.max(num('pause_until'), now + math.min(retry_after, 60)))
    end
    return 0
  end
  local fails = redis.call('HINCRBY', L, 'fails', 1)
  if num('open_until') > 0 then return 1 end
  if fails < open_after then return 0 end
  local opened = redis.call('HINCRBY', L, 'open_n', 1)
  set('open_until', now + math.min(60, 2 ^ (opened - 1)), 'half', 0)
  if num('down_since') == 0 then set('down_since', now) end
  return 1
end

-- a process looked whether the endpoint is back
local function looked()
  if arg[1] == '1' then
    -- one call goes first; a single failure more opens the circuit again
    set('open_until', 0, 'fails', tonumber(arg[2]) - 1, 'half', now)
  else
    local opened = redis.call('HINCRBY', L, 'open_n', 1)
    set('open_until', now + math.min(60, 2 ^ (opened - 1)))
  end
end

return ({admit = admit, failed = failed, looked = looked})[ARGV[1]]()
