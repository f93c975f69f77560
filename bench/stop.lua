-- What stopping scripts costs: running under ctx:pcall, entering it, and how late a stop comes.
--
--   make all && lua5.4 bench/stop.lua      (LUA_PATH and LUA_CPATH as in the Makefile; about 20 s)
--
-- Plain and guarded runs take turns, and the ratios are of neighbours: a machine that slows down slows both.

local context = require "lcontext"

local PAIRS, STOPS, DEADLINE = 25, 1000, 0.002

local function median(list)
  table.sort(list)
  local n = #list
  return n % 2 == 1 and list[n // 2 + 1] or (list[n // 2] + list[n // 2 + 1]) / 2
end

local function quantile(list, q)
  table.sort(list)
  return list[math.max(1, math.ceil(#list * q))]
end

local function seconds(f, ...)
  local start = os.clock()
  f(...)
  return os.clock() - start
end

local scripts = {
  { "arithmetic loop", function()
    local x = 0
    for i = 1, 8e6 do
      x = (x * 3 + i) % 1000003
    end
    return x
  end },
  { "table access", function()
    local t = {}
    for i = 1, 1000 do t[i] = i end
    for _ = 1, 4000 do
      for i = 2, 1000 do t[i] = t[i - 1] + 1 end
    end
    return t[1000]
  end },
  { "function calls", function()
    local function add(a, b) return a + b end
    local x = 0
    for i = 1, 2e6 do
      x = add(x, i)
    end
    return x
  end },
}

print(("median of %d pairs      plain (ms)  ctx:pcall, ratio  count hook, ratio"):format(PAIRS))
local live = context.with_timeout(context.background(), 3600)
for _, script in ipairs(scripts) do
  local name, f = script[1], script[2]
  local plain, guarded, hooked = {}, {}, {}
  local function under_ctx()
    assert(live:pcall(f))
  end
  local function under_pcall()
    assert(pcall(f))
  end
  local function under_hook()
    debug.sethook(function() end, "", 1000)
    f()
    debug.sethook()
  end
  f()
  for i = 1, PAIRS do
    local first, second = under_pcall, under_ctx
    if i % 2 == 0 then first, second = second, first end
    local a, b = seconds(first), seconds(second)
    if i % 2 == 0 then a, b = b, a end
    plain[i], guarded[i], hooked[i] = a, b / a, seconds(under_hook) / a
  end
  print(("%-22s  %10.1f  %16.3f  %17.3f"):format(name, median(plain) * 1e3, median(guarded), median(hooked)))
end

-- Entering and leaving: nanoseconds for each call of a function that does nothing.
local function nothing() end

local CALLS = 100000
local plain, guarded = {}, {}
for i = 1, 15 do
  plain[i] = seconds(function() for _ = 1, CALLS do pcall(nothing) end end) / CALLS * 1e9
  guarded[i] = seconds(function() for _ = 1, CALLS do live:pcall(nothing) end end) / CALLS * 1e9
end
local plain_ns, guarded_ns = median(plain), median(guarded)
print(("\nenter and leave: ctx:pcall %.0f ns, pcall %.0f ns, difference %.0f ns"):format(
  guarded_ns, plain_ns, guarded_ns - plain_ns))

-- How late: from the deadline to the return of ctx:pcall.
local late = {}
for i = 1, STOPS do
  local ctx <close> = context.with_timeout(context.background(), DEADLINE)
  local deadline = context.now() + ctx:remaining()
  local ok, err = ctx:pcall(function() while true do end end)
  late[i] = context.now() - deadline
  assert(not ok and err == context.DeadlineExceeded)
end
print(("late, of %d stops: p50 %.3f ms, p99 %.3f ms, max %.3f ms"):format(
  STOPS, quantile(late, 0.5) * 1e3, quantile(late, 0.99) * 1e3, quantile(late, 1) * 1e3))
