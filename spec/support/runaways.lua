-- Scripts that never end by themselves, by name, in order. Each is called with the module and must be stopped; those
-- that are marked, in signal mode only (doc/stopping.md says why).

local list = {}

local function add(name, f, signal_only)
  list[#list + 1] = { name = name, run = f, signal_only = signal_only }
end

local function forever()
  while true do end
end

local function closing(f)
  return setmetatable({}, { __close = f })
end

add("a loop", forever)
add("a loop of goto", function() ::again:: goto again end)
add("a repeat", function() repeat until false end)
add("a loop of calls of C functions", function() while true do math.abs(1) end end)
add("endless tail calls", function()
  local function f() return f() end
  f()
end)
add("a loop inside pcall", function() pcall(forever) end)
add("pcall again and again", function() while true do pcall(forever) end end)
add("pcall inside pcall again and again", function()
  while true do pcall(function() while true do pcall(pcall, forever) end end) end
end)
add("pcall and error again and again", function() while true do pcall(error, "x") end end)
add("xpcall with a handler that loops", function() xpcall(forever, forever) end)
add("xpcall with a handler that loops, again and again", function() while true do xpcall(forever, forever) end end)
add("xpcall with a handler that fails", function() while true do xpcall(forever, function() error("again") end) end end)
add("xpcall with a handler that loops over an error of its own", function() xpcall(error, forever, "x") end)
add("xpcall with a wrapped coroutine for a handler", function() xpcall(forever, coroutine.wrap(forever)) end)
add("xpcall with a handler that is xpcall's", function()
  while true do xpcall(forever, function() xpcall(forever, forever) while true do end end) end
end)
add("xpcall with debug.traceback", function() while true do xpcall(forever, debug.traceback) end end)
for _, event in ipairs { "index", "newindex", "call", "add", "concat", "len", "eq", "lt", "le", "unm", "close" } do
  add("a metamethod: __" .. event, function()
    local a = setmetatable({}, { ["__" .. event] = forever })
    local b = setmetatable({}, getmetatable(a))
    local actions = {
      index = function() return a.x end,
      newindex = function() a.x = 1 end,
      call = function() a() end,
      add = function() return a + 1 end,
      concat = function() return a .. "x" end,
      len = function() return #a end,
      eq = function() return a == b end,
      lt = function() return a < b end,
      le = function() return a <= b end,
      unm = function() return -a end,
      close = function() local _ <close> = a end,
    }
    actions[event]()
  end)
end
add("an iterator", function() for _ in function() while true do end end do end end)
add("an iterator without an end", function() for _ in function() return 1 end do end end)
add("a comparator of table.sort", function() table.sort({ 3, 2, 1 }, forever) end)
add("sorting again and again", function()
  local t = {}
  for i = 1, 500 do t[i] = -i end
  while true do table.sort(t, function(a, b) return t[1] and a < b end) end
end)
add("a callback of gsub", function() (("x"):rep(10)):gsub("x", forever) end)
add("gsub in pcall in a callback of gsub", function()
  (("x"):rep(10)):gsub("x", function() pcall(string.gsub, "xxx", "x", forever) forever() end)
end)
add("the top level of a required module", function()
  package.preload["spec.runaway"] = forever
  require("spec.runaway")
end)
add("a chunk that load reads from a function", function() load(function() while true do end end) end)
add("a loaded chunk", function() load("while true do end")() end)
add("a __close handler that never ends", function() local _ <close> = closing(forever) end)
add("a __close handler that never ends, after the stop", function() local _ <close> = closing(forever) forever() end)
add("many __close handlers that never end", function()
  local _ <close> = closing(forever)
  local _ <close> = closing(function() while true do pcall(forever) end end)
  local _ <close> = closing(forever)
  forever()
end)
add("a __tostring in string.format", function()
  return string.format("%s", setmetatable({}, { __tostring = forever }))
end)
add("a __tostring in tostring in pcall", function()
  while true do pcall(tostring, setmetatable({}, { __tostring = forever })) end
end)

do
  local early = coroutine.create(forever)
  add("a coroutine made before", function() coroutine.resume(early) end)
  local early_wrap = coroutine.wrap(function() coroutine.yield() forever() end)
  early_wrap()
  add("a wrapped coroutine made and begun before", function() early_wrap() end)
end
add("a coroutine made inside", function() coroutine.resume(coroutine.create(forever)) end)
add("coroutines again and again", function() while true do coroutine.resume(coroutine.create(forever)) end end)
add("short coroutines again and again", function()
  while true do coroutine.wrap(function() coroutine.yield() end)() end
end)
add("a wrapped coroutine", function() coroutine.wrap(forever)() end)
add("coroutines five deep", function()
  local function deep(n)
    if n == 0 then forever() end
    while true do pcall(coroutine.wrap(deep), n - 1) end
  end
  deep(5)
end)
add("a ping-pong of coroutines", function()
  local co = coroutine.wrap(function() while true do pcall(coroutine.yield) end end)
  while true do pcall(co) end
end)
add("a coroutine resumed in a __close handler", function()
  local _ <close> = closing(function() coroutine.resume(coroutine.create(forever)) end)
  forever()
end)
add("a wrapped coroutine in a __close handler in a coroutine", function()
  coroutine.wrap(function()
    -- The handler itself, of a coroutine that is dead, runs without hooks: what it must not do is loop.
    local _ <close> = closing(function() coroutine.wrap(forever)() end)
    forever()
  end)()
end)
add("a suspended coroutine that is closed, with a __close handler that never ends", function()
  local co = coroutine.create(function() local _ <close> = closing(forever) coroutine.yield() end)
  coroutine.resume(co)
  coroutine.close(co)
end)
add("deep recursion", function()
  local function f(n) return n == 0 and 0 or 1 + f(n - 1) end
  while true do f(50000) end
end)
add("endless recursion in pcall", function()
  local function f() return 1 + f() end
  while true do pcall(f) end
end)
add("endless recursion with a handler", function()
  local function f() return 1 + f() end
  while true do xpcall(f, function() while true do end end) end
end)
add("recursion through pcall", function()
  local function f() pcall(f) pcall(f) end
  f()
end)
add("string building", function()
  while true do
    local s = ""
    for i = 1, 2000 do s = s .. i end
  end
end)
add("table filling", function()
  while true do
    local t = {}
    for i = 1, 20000 do t[i] = { i } t["k" .. i] = i end
    assert(#t > 0)
  end
end)
add("collecting", function() while true do collectgarbage() end end)
add("a hook that loops in pcall of a count", function()
  while true do pcall(function() local n = 0 while true do n = n + 1 end end) end
end)
add("its own guarded calls", function(context)
  while true do
    local ctx <close> = context.with_timeout(context.background(), 0.001)
    ctx:pcall(forever)
  end
end)
add("its own guarded calls of live contexts", function(context)
  local ctx <close> = context.with_cancel(context.background())
  while true do ctx:pcall(pcall, forever) end
end)
add("after_func and dispatch", function(context)
  while true do
    local ctx <close>, cancel = context.with_cancel(context.background())
    ctx:after_func(function() end)
    cancel()
    context.dispatch()
  end
end)
add("a callback that loops", function(context)
  local ctx, cancel = context.with_cancel(context.background())
  ctx:after_func(function() while true do pcall(forever) end end)
  cancel()
  context.dispatch()
  forever()
end)

add("a __close that loops, of a coroutine that was stopped", function()
  local f = coroutine.wrap(function()
    local _ <close> = closing(forever)
    forever()
  end)
  f()
end)
add("the same, five deep, again and again", function()
  local function nest(depth)
    local _ <close> = closing(function() while true do pcall(forever) end end)
    if depth == 0 then forever() end
    coroutine.wrap(nest)(depth - 1)
  end
  while true do pcall(nest, 5) end
end)
add("the same, closed by hand", function()
  local co = coroutine.create(function()
    local _ <close> = closing(forever)
    forever()
  end)
  coroutine.resume(co)
  coroutine.close(co)
  forever()
end)

add("taking hooks off", function() while true do pcall(debug.sethook) end end, true)

add("setting hooks", function() while true do pcall(debug.sethook, function() end, "crl", 1) end end, true)

return list
