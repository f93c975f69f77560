-- The rows of the benchmark (rows.lua) through the Lua binding.
--
--   binding.lua          runs all of them once, for a look
--   binding.lua list     names the runs
--   binding.lua RUN      runs one: each line is a row, a tab, and nanoseconds (or bytes)
--
-- A figure comes out of one loop of MIN seconds or more, with the collector as it is by default. What is called
-- there is in local variables.

local context = require "lcontext"

local background, with_cancel, with_timeout = context.background(), context.with_cancel, context.with_timeout
local with_deadline, with_value, with_values = context.with_deadline, context.with_value, context.with_values
local now, err, done, value = context.now, background.err, background.done, background.value

local SIBLINGS <const>, LAYERS <const>, OF_A_KIND <const>, HOUR <const> = 100000, 100, 200000, 3600
local MIN <const> = 0.025
local LONG <const> = 0.2 -- where there is a large heap: the collector is to have its turn

-- What has to stay alive.
local kept = {}

-- The runs, in order, and by name what measures them.
local runs, measures = {}, {}

local function add(name, measure)
  runs[#runs + 1] = name
  measures[name] = measure
end

local function report(name, figure)
  print(("%s\t%.3f"):format(name, figure))
end

-- ---- Loops

-- Nanoseconds for one of n turns of the loop, for an n that takes long enough.
local function calibrated(min, loop)
  local n = 1
  while true do
    local start = now()
    loop(n)
    local seconds = now() - start
    if seconds >= min * 0.8 then
      return seconds / n * 1e9
    end
    n = seconds < min / 50 and n * 10 or n * min // seconds * 11 // 10 + 1
    n = math.tointeger(n)
  end
end

-- A run of a loop, which set_up makes.
local function per_turn(name, set_up, min)
  add(name, function()
    report(name, calibrated(min or MIN, set_up()))
  end)
end

-- A table of n that does not grow any more.
local function new_array(n)
  local list = {}
  for i = 1, n do
    list[i] = false
  end
  return list
end

local function live_parent()
  local ctx, cancel = with_cancel(background)
  kept[#kept + 1] = cancel
  return ctx
end

local function ended_parent()
  local ctx, cancel = with_cancel(background)
  cancel()
  return ctx
end

-- ---- Making and ending one context

local function cancel_loop(parent)
  return function(n)
    for _ = 1, n do
      local _, cancel = with_cancel(parent)
      cancel()
    end
  end
end

local function timeout_loop(parent)
  return function(n)
    for _ = 1, n do
      local _, cancel = with_timeout(parent, HOUR)
      cancel()
    end
  end
end

local function parent_with_siblings(make)
  local parent = live_parent()
  for _ = 1, SIBLINGS do
    kept[#kept + 1] = make(parent, HOUR)
  end
  return parent
end

per_turn("with_cancel.background", function() return cancel_loop(background) end)
per_turn("with_cancel.parent", function() return cancel_loop(live_parent()) end)
per_turn("with_cancel.siblings", function() return cancel_loop(parent_with_siblings(with_cancel)) end, LONG)
per_turn("with_timeout.background", function() return timeout_loop(background) end)
per_turn("with_timeout.parent", function() return timeout_loop(live_parent()) end)
per_turn("with_timeout.siblings", function() return timeout_loop(parent_with_siblings(with_timeout)) end, LONG)

per_turn("after_func", function()
  local ctx, after_func = live_parent(), context.after_func
  local function f() end
  return function(n)
    for _ = 1, n do
      local stop = after_func(ctx, f)
      stop()
    end
  end
end)

-- ---- Values

local keys = {}
for i = 1, 1000 do
  keys[i] = context.key()
end

-- keys[1] is nearest to ctx.
local function add_layers(ctx, depth)
  for i = 1, depth do
    ctx = with_value(ctx, keys[i], 1)
  end
  return ctx
end

local function value_loop(ctx, key)
  return function(n)
    for _ = 1, n do
      value(ctx, key)
    end
  end
end

per_turn("with_value", function()
  local key = keys[1]
  return function(n)
    for _ = 1, n do
      with_value(background, key, 1)
    end
  end
end)

per_turn("with_values.8", function()
  local values = {}
  for i = 1, 8 do
    values[keys[i]] = 1
  end
  return function(n)
    for _ = 1, n do
      with_values(background, values)
    end
  end
end)

local function miss_loop(depth)
  return value_loop(add_layers(background, depth), context.key())
end

for _, depth in ipairs { 1, 10, 100, 1000 } do
  per_turn("value.hit." .. depth, function() return value_loop(add_layers(background, depth), keys[1]) end)
  per_turn("value.miss." .. depth, function() return miss_loop(depth) end)
end

-- ---- Asking

local function call_loop()
  local call, argument = rawlen, ""
  return function(n)
    for _ = 1, n do
      call(argument)
    end
  end
end

local function err_loop(ctx)
  return function(n)
    for _ = 1, n do
      err(ctx)
    end
  end
end

local function done_loop(ctx)
  local closed = done(ctx).closed
  return function(n)
    for _ = 1, n do
      closed(done(ctx))
    end
  end
end

per_turn("floor.call", call_loop)
for _, case in ipairs { { "live", live_parent }, { "ended", ended_parent } } do
  local state, make = case[1], case[2]
  per_turn("err." .. state, function() return err_loop(make()) end)
  per_turn("done." .. state, function() return done_loop(make()) end)
  per_turn(("err.%s.layers"):format(state), function() return err_loop(add_layers(make(), LAYERS)) end)
  per_turn(("done.%s.layers"):format(state), function() return done_loop(add_layers(make(), LAYERS)) end)
end

per_turn("wait.0", function()
  local waited = done(live_parent())
  local wait = waited.wait
  return function(n)
    for _ = 1, n do
      wait(waited, 0)
    end
  end
end)

-- ---- Ending a tree

-- A parent does not hold its children: `links` does.
local function grow_children(parent, links, first, size)
  for i = first, first + size - 1 do
    links[i] = with_cancel(parent)
  end
end

local function grow_chain(parent, links, first, size)
  for i = first, first + size - 1 do
    parent = with_cancel(parent)
    links[i] = parent
  end
end

local function cancel_trees(grow, size, count)
  local links, cancels = new_array(size * count), new_array(count)
  for i = 1, count do
    local parent
    parent, cancels[i] = with_cancel(background)
    grow(parent, links, (i - 1) * size + 1, size)
  end
  local start = now()
  for i = 1, count do
    cancels[i]()
  end
  local seconds = now() - start
  assert(err(links[#links]) == context.Canceled)
  return seconds
end

local function per_node(name, grow, size)
  add(name, function()
    local count, seconds, nodes = math.max(1, 30000 // size), 0, 0
    while seconds < MIN do
      seconds = seconds + cancel_trees(grow, size, count)
      nodes = nodes + count * size
    end
    report(name, seconds / nodes * 1e9)
  end)
end

for _, size in ipairs { 1, 1000, 100000, 1000000 } do
  per_node("cancel.children." .. size, grow_children, size)
end
for _, size in ipairs { 10000, 1000000 } do
  per_node("cancel.chain." .. size, grow_chain, size)
end

-- ---- Timers

local function create_and_cancel(contexts, cancels, tally)
  local start = now()
  for i = 1, #contexts do
    contexts[i], cancels[i] = with_timeout(background, HOUR)
  end
  local created = now()
  for i = 1, #cancels do
    cancels[i]()
  end
  local cancelled = now()
  tally.create = tally.create + created - start
  tally.cancel = tally.cancel + cancelled - created
  tally.timers = tally.timers + #contexts
end

-- Seconds from the common deadline of the timers until all have ended; nil when they could not be made before their
-- deadline.
local function expire(contexts, cancels, lead)
  local deadline = now() + lead
  for i = 1, #contexts do
    contexts[i], cancels[i] = with_deadline(background, deadline)
  end
  local in_time = now() < deadline
  for i = #contexts, 1, -1 do -- the last one first: then few of the others are still to be waited for
    if not err(contexts[i]) then
      done(contexts[i]):wait()
    end
  end
  return in_time and now() - deadline
end

local function expire_in_time(contexts, cancels, lead)
  return expire(contexts, cancels, lead) or expire_in_time(contexts, cancels, lead * 2)
end

local function timers(name, n, times)
  local contexts, cancels = new_array(n), new_array(n)
  local tally = { create = 0, cancel = 0, timers = 0 }
  while tally.create < MIN do
    create_and_cancel(contexts, cancels, tally)
  end
  local create, expired = tally.create / tally.timers, 0
  for _ = 1, times do
    expired = expired + expire_in_time(contexts, cancels, 0.002 + 1.5 * create * n)
  end
  report(name .. ":create", create * 1e9)
  report(name .. ":cancel", tally.cancel / tally.timers * 1e9)
  report(name .. ":expire", expired / n / times * 1e9)
end

add("timers.100", function() timers("timers.100", 100, 20) end)
add("timers.1000000", function() timers("timers.1000000", 1000000, 1) end)

local function quantile(list, q)
  table.sort(list)
  return list[math.floor((#list - 1) * q) + 1]
end

add("late", function()
  local COUNT <const> = 10000
  local late, seen, start = new_array(COUNT), 0, now() + 0.2
  for i = 1, COUNT do
    local deadline = start + i * 7919 % COUNT / COUNT -- out of order: 7919 is prime
    with_deadline(background, deadline):after_func(function()
      late[i] = (now() - deadline) * 1e9
      seen = seen + 1
    end)
  end
  while seen < COUNT do
    context.dispatch(1)
  end
  report("late:p50", quantile(late, 0.5))
  report("late:p99", quantile(late, 0.99))
end)

-- ---- Memory

-- Of this process, in bytes; nil where there is no /proc.
local function resident()
  collectgarbage()
  collectgarbage()
  local file = io.open("/proc/self/status")
  local kilobytes = file and file:read("a"):match("VmRSS:%s*(%d+) kB")
  if file then
    file:close()
  end
  return kilobytes and kilobytes * 1024
end

local function bytes_each(name, make, ...)
  local contexts, cancels = new_array(OF_A_KIND), new_array(OF_A_KIND)
  local before = resident()
  for i = 1, OF_A_KIND do
    contexts[i], cancels[i] = make(...)
  end
  if before then
    report(name, (resident() - before) / OF_A_KIND)
  end
  kept[#kept + 1] = { contexts, cancels }
end

add("bytes.with_cancel", function() bytes_each("bytes.with_cancel", with_cancel, live_parent()) end)
add("bytes.with_timeout", function() bytes_each("bytes.with_timeout", with_timeout, live_parent(), HOUR) end)
add("bytes.with_value", function() bytes_each("bytes.with_value", with_value, background, keys[1], 1) end)

-- ---- Go's own benchmarks

local function divide(x)
  for _ = 1, 100 do
    x = x // (x + 1)
  end
  return x
end

per_turn("CommonParentCancel", function()
  local shared, key = with_cancel(with_value(background, keys[1], 1)), keys[1]
  return function(n)
    local x = 0
    for _ = 1, n do
      local ctx, cancel = with_cancel(shared)
      assert(value(ctx, key) == 1)
      x = divide(x)
      cancel()
      x = divide(x)
    end
  end
end)

local function ten_timeouts(n)
  local cancels, _ = {}, nil
  for _ = 1, n do
    for k = 1, 10 do
      _, cancels[k] = with_timeout(background, HOUR)
    end
    for k = 1, 10 do
      cancels[k]()
    end
  end
end

for _, concurrency in ipairs { 40, 4000, 400000 } do
  per_turn("WithTimeout/concurrency=" .. concurrency, function()
    for _ = 1, concurrency do
      kept[#kept + 1] = with_timeout(background, HOUR)
    end
    return ten_timeouts
  end, concurrency > SIBLINGS and LONG or MIN)
end

-- A chain whose cancel functions are thrown away.
local function build_chain(ctx, depth)
  for _ = 1, depth do
    ctx = with_cancel(ctx)
  end
  return ctx
end

local function tree_of(name, turn)
  per_turn(name, function()
    return function(n)
      for _ = 1, n do
        turn()
      end
    end
  end)
end

for _, depth in ipairs { 1, 10, 100, 1000 } do
  local name = ("CancelTree/depth=%d/Root="):format(depth)
  tree_of(name .. "Background", function()
    build_chain(background, depth)
  end)
  tree_of(name .. "OpenCanceler", function()
    local ctx, cancel = with_cancel(background)
    local leaf = build_chain(ctx, depth)
    cancel()
    return leaf -- held until here
  end)
  tree_of(name .. "ClosedCanceler", function()
    local ctx, cancel = with_cancel(background)
    cancel()
    build_chain(ctx, depth)
  end)
end

per_turn("CheckCanceled/Err", function() return err_loop(ended_parent()) end)
per_turn("CheckCanceled/Done", function() return done_loop(ended_parent()) end)
per_turn("ContextCancelDone", function() return done_loop(live_parent()) end)

for _, depth in ipairs { 10, 20, 30, 50, 100 } do
  per_turn("DeepValueNewGoRoutine/depth=" .. depth, function()
    local ctx, key = add_layers(background, depth), context.key()
    return function(n)
      for _ = 1, n do
        coroutine.wrap(value)(ctx, key)
      end
    end
  end)
  per_turn("DeepValueSameGoRoutine/depth=" .. depth, function() return miss_loop(depth) end)
end

per_turn("ErrOK", function() return err_loop(live_parent()) end)
per_turn("ErrCanceled", function() return err_loop(ended_parent()) end)

-- ---- What is wanted

local wanted = arg[1]
if wanted == "list" then
  print(table.concat(runs, "\n"))
elseif wanted then
  if measures[wanted] then
    measures[wanted]()
  end
else
  for _, name in ipairs(runs) do
    measures[name]()
    kept = {}
    collectgarbage()
  end
end
io.stdout:flush()
os.exit(true, false) -- the collector need not take a million contexts apart
