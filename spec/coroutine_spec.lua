-- The drop-in coroutine.resume, wrap, close and xpcall behave to the letter as Lua's own: the same cases run in a
-- process without lcontext, in one with it, and in one with it under ctx:pcall; what they print has to be equal.

local lua = os.getenv("LUA") or "lua5.4"
local seed = tonumber(os.getenv("SEED")) or os.time()
local PROGRAMS = 300

-- How a child starts, by the way it is to run the cases.
local modes = {
  plain = "",
  loaded = [[
    local resume, wrap, close, old_xpcall = coroutine.resume, coroutine.wrap, coroutine.close, xpcall
    require "lcontext"
    assert(resume ~= coroutine.resume and wrap ~= coroutine.wrap and close ~= coroutine.close)
    assert(old_xpcall ~= xpcall)]],
  guarded = [[
    local context = require "lcontext"
    local ctx = context.with_timeout(context.background(), 6000)
    function RUNNER(...) return ctx:pcall(...) end]],
}

local prelude = [=[
local runner = RUNNER or pcall
local numbers, last

-- A value as text that is the same in each process: objects are numbered as they come.
local function show(value)
  local kind = type(value)
  if kind == "string" then
    return (("%q"):format(value):gsub("0x%x+", "ADDRESS"))
  elseif kind == "table" or kind == "function" or kind == "thread" or kind == "userdata" then
    if not numbers[value] then
      last = last + 1
      numbers[value] = kind .. " " .. last
    end
    return numbers[value]
  end
  return tostring(value)
end

function out(...)
  local row = table.pack(...)
  for i = 1, row.n do
    row[i] = show(row[i])
  end
  print(row.n, table.concat(row, ", "))
end

-- A variable to be closed, whose handler says so and then does what it is told.
function closer(name, and_then)
  return setmetatable({}, { __close = function(_, err)
    out("close", name, err)
    if and_then then
      and_then(name, err)
    end
  end })
end

function fail(name)
  error("failed " .. name)
end

-- Runs f at the top, and in a coroutine of its own.
function case(name, f)
  print("== " .. name)
  numbers, last = {}, 0
  if not RUNNER then
    out(pcall(f))
  end
  print("-- in a coroutine")
  numbers, last = {}, 0
  local co = coroutine.create(f)
  for _ = 1, 20 do
    out(runner(coroutine.resume, co))
    if coroutine.status(co) == "dead" then
      break
    end
  end
  out(coroutine.status(co))
end
]=]

local cases = [=[
local create, resume, wrap, yield = coroutine.create, coroutine.resume, coroutine.wrap, coroutine.yield
local status, running = coroutine.status, coroutine.running
local unpack = table.unpack

case("bad arguments", function()
  for _, name in ipairs { "resume", "wrap", "close", "create", "status" } do
    local f = coroutine[name]
    out(name, pcall(f))
    for _, value in ipairs { 1, "x", {}, true, print, io.stdout } do
      out(name, pcall(f, value))
    end
    out(name, pcall(f, nil))
  end
  out(pcall(function() coroutine.resume(1) end))
  out(pcall(function() coroutine.wrap({}) end))
  out(pcall(function() coroutine.close() end))
  out(pcall(function() local r = coroutine.resume r() end))
  out(pcall(function() local t = setmetatable({}, { __index = coroutine.resume }) return t.x end))
  out(pcall(function() xpcall() end))
  out(pcall(function() xpcall(print) end))
  out(pcall(function() xpcall(print, nil) end))
  out(pcall(function() xpcall(print, 1) end))
  out(pcall(function() xpcall(print, setmetatable({}, { __call = print })) end))
  out(pcall(xpcall))
  out(pcall(xpcall, 1))
  out(pcall(xpcall, nil, print))
  out(xpcall(nil, function(e) return e end))
  out(xpcall({}, function(e) return e end, 1, 2))
  out(xpcall(setmetatable({}, { __call = function(...) return select("#", ...) end }), print, 1, nil, nil))
end)

case("values pass", function()
  local co = create(function(...)
    out("in", ...)
    for _ = 1, 4 do
      out("in", yield(...))
    end
    return nil, nil
  end)
  for _, args in ipairs { { n = 0 }, { n = 1 }, { n = 3, false }, { n = 2, "a" }, { n = 5, [5] = 1 }, { n = 1 } } do
    out(resume(co, unpack(args, 1, args.n)))
  end
  local f = wrap(function(...) while true do yield(select("#", ...), ...) end end)
  out(f()) out(f(nil)) out(f(1, nil, nil)) out(f({}))
  out(xpcall(function(...) return ... end, print, nil, 2, nil))
  out(xpcall(function() end, print))
end)

case("hundreds of values", function()
  local many = {}
  for i = 1, 900 do many[i] = i end
  local co = create(function(...) local t = { yield(...) } return unpack(t) end)
  out(select("#", resume(co, unpack(many))))
  local back = { resume(co, unpack(many)) }
  out(#back, back[1], back[2], back[901])
  local f = wrap(function(...) return ... end)
  out(select("#", f(unpack(many))))
  out(select("#", xpcall(function(...) return ... end, print, unpack(many))))
  out(select(-1, xpcall(function(...) return ... end, print, unpack(many))))
end)

case("too many values", function()
  local many = table.pack(unpack({}, 1, 180000))
  local deep = create(function() return "never" end)
  out(select("#", resume(create(function(...) return ... end), unpack(many, 1, 180000))))
  local function eat(n, ...) if n > 0 then return (eat(n - 1, ...)) end return (resume(deep, ...)) end
  out(pcall(function() return resume(create(function() return unpack(many, 1, 600000) end)) end))
  local co = create(function() return unpack({}, 1, 600000) end)
  local function narrow(...) return resume(co) end
  out(pcall(narrow, unpack({}, 1, 600000)))
  out(status(co))
  local full = create(function(...) yield(select("#", ...)) end)
  out(resume(full, unpack({}, 1, 500000)))
  out(resume(full, unpack({}, 1, 900000)))
  out(status(full))
  local wrapped = wrap(function() return unpack({}, 1, 600000) end)
  out(pcall(function(...) return wrapped() end, unpack({}, 1, 600000)))
end)

case("errors and where", function()
  local function try(body)
    out("resume", resume(create(body)))
    out("wrap", pcall(wrap(body)))
    out("wrap in Lua", pcall(function() local f = wrap(body) f() end))
    out("wrap tail", pcall(function() return wrap(body)() end))
    out("xpcall", xpcall(body, function(...) out("handler", ...) return ... end))
    out("xpcall C", xpcall(body, select, 1))
    out("xpcall print", xpcall(body, type))
  end
  try(function() error("text") end)
  try(function() error("no place", 0) end)
  try(function() error("level 2", 2) end)
  try(function() error("level 3", 3) end)
  try(function() error(nil) end)
  try(function() error() end)
  try(function() error(42) end)
  try(function() error({}) end)
  try(function() error(setmetatable({}, { __tostring = function() return "object" end })) end)
  try(function() local x = nil + 1 end)
  try(function() local t t.x = 1 end)
  try(function() undefined() end)
  try(function() string.rep() end)
  try(function() ("x"):rep(-1):bad() end)
  try(function() yield() error("after yield") end)
  try(error)
  try(string.rep)
  try(assert)
end)

case("dead, running, normal", function()
  local dead = create(function() end)
  resume(dead)
  out(resume(dead), status(dead)) out(resume(dead, 1, 2)) out(coroutine.close(dead)) out(coroutine.close(dead))
  local failed = create(function() error("x") end)
  resume(failed)
  out(status(failed)) out(resume(failed)) out(coroutine.close(failed)) out(coroutine.close(failed)) out(resume(failed))
  local f = wrap(function() end)
  f() out(pcall(f)) out(pcall(function() f() end))
  out(resume((running()))) out(pcall(coroutine.close, (running())))
  out(pcall(function() coroutine.close(running()) end))
  local outer
  outer = create(function()
    out("inside", status(outer), resume(outer))
    local inner = create(function()
      out("normal", status(outer), resume(outer))
      out(pcall(coroutine.close, outer)) out(pcall(function() coroutine.close(outer) end))
      yield(1)
    end)
    out(resume(inner)) out(coroutine.close(inner), status(inner))
    yield()
  end)
  out(resume(outer)) out(coroutine.close(outer)) out(status(outer), resume(outer))
  local itself
  itself = wrap(function() return pcall(itself) end)
  out(itself())
  itself = wrap(function() itself() end)
  out(pcall(itself))
  local fresh = create(print)
  out(coroutine.close(fresh), status(fresh), resume(fresh))
end)

case("who runs", function()
  local co, main = running()
  out(type(co), main, coroutine.isyieldable())
  local inner = create(function()
    local me, is_main = running()
    out(me, is_main, coroutine.isyieldable(), status(me), status(co))
    out(xpcall(function() return running(), coroutine.isyieldable() end, print))
    out(select("#", running()))
    out(coroutine.isyieldable(co))
    table.sort({ 1, 2 }, function(a, b) out(coroutine.isyieldable()) return a < b end)
    yield()
  end)
  out(inner, resume(inner))
  out(status(inner), coroutine.isyieldable(inner))
end)

case("close with handlers", function()
  local function suspended(...)
    local handlers = { ... }
    local co = create(function()
      local a <close> = closer("a", handlers[1])
      local b <close> = closer("b", handlers[2])
      local c <close> = closer("c", handlers[3])
      yield("here")
      error("body")
    end)
    resume(co)
    return co
  end
  local function object() error({}) end
  local function yields() yield("from close") end
  local function nothing() error(nil) end
  for i, set in ipairs { {}, { fail }, { nil, fail }, { fail, fail, fail }, { object, nil, fail }, { nothing },
                         { yields }, { nil, yields, fail }, { fail, yields } } do
    out("set", i)
    local co = suspended(set[1], set[2], set[3])
    out("closed", coroutine.close(co)) out(status(co)) out(coroutine.close(co)) out(resume(co))
    co = suspended(set[1], set[2], set[3])
    for _ = 1, 4 do out("resumed", resume(co)) end
    local f = wrap(function()
      local a <close> = closer("wa", set[1])
      local b <close> = closer("wb", set[2])
      yield() error("wrapped")
    end)
    f()
    for _ = 1, 3 do out("called", pcall(f)) end
    f = wrap(function() local a <close> = closer("wa", set[1]) local b <close> = closer("wb", set[2]) error({}) end)
    for _ = 1, 3 do out("called", pcall(f)) end
  end
  local co
  co = create(function()
    local a <close> = closer("self", function() out(pcall(coroutine.close, co), status(co)) end) yield() end)
  resume(co) out(coroutine.close(co))
  co = create(function() local a <close> = closer("again", function() out(resume(co)) end) yield() end)
  resume(co) out(coroutine.close(co))
  co = create(function() local a <close> = closer("inner", function()
    out(running(), coroutine.isyieldable())
    local x = create(function() local b <close> = closer("deep", fail) yield(1) end)
    out(resume(x)) out(coroutine.close(x))
  end) yield() end)
  resume(co) out(coroutine.close(co))
end)

case("wrap in for", function()
  for a, b in wrap(function() for i = 1, 3 do yield(i, i * i) end end) do out(a, b) end
  out(pcall(function() for a in wrap(function() yield(1) error("in iterator") end) do out(a) end end))
  out(pcall(function() for a in wrap(function() yield(1) error({}) end) do out(a) end end))
  for a in wrap(function() for i = 1, 9 do yield(i) end end), nil, nil, closer("for") do if a == 2 then break end end
  local tree = { { {}, {} }, {} }
  local function walk(t) for _, x in ipairs(t) do walk(x) end yield(#t) end
  for n in wrap(function() walk(tree) end) do out(n) end
end)

case("yield across calls", function()
  local co = create(function()
    out(pcall(function() yield("pcall") error("e1") end))
    out(xpcall(function(...) out(yield("xpcall", ...)) return "r", nil end, print, 1, nil))
    out(xpcall(function() yield("xpcall then error") error("e2") end, function(e) return "handled " .. e end))
    out(xpcall(function() yield("then object") error({}) end, function(e) return e, 2 end))
    out(xpcall(function() return xpcall(function() yield("nested") error("e3") end, error) end, print))
    local t = setmetatable({}, {
      __add = function(a, b) return yield("add") end, __index = function(_, k) return yield("index") end,
      __newindex = function() yield("newindex") end, __call = function(_, x) return yield("call") end,
      __eq = function() return yield("eq") end, __lt = function() return yield("lt") end,
      __le = function() return yield("le") end, __concat = function() return yield("concat") end,
      __len = function() return yield("len") end, __unm = function() return yield("unm") end,
      __close = function() yield("close") end,
    })
    out(t + 1, t.x, t(1), t == setmetatable({}, getmetatable(t)), t < t, t <= t, t .. "x", #t, -t)
    t.y = 1
    do local c <close> = t end
    for x in function(_, x) return yield("iterator", x) end do out(x) break end
    out(pcall(table.sort, { 1, 2, 3 }, function() yield() end))
    out(pcall(string.gsub, "abc", ".", yield))
    out(xpcall(yield, print, "yield itself"))
    out(xpcall(pcall, print, yield, "in pcall"))
    out(xpcall(error, yield, "yield as handler"))
    return "end"
  end)
  local i = 0
  repeat i = i + 1 out(resume(co, i, "back")) until status(co) == "dead"
  out(pcall(yield, "outside"))
end)

case("traceback of a coroutine", function()
  local function deep(n) if n == 0 then yield() error("deep") end deep(n - 1) end
  local co = create(function() deep(2) end)
  resume(co) out(debug.traceback(co)) out(debug.traceback(co, "m", 1))
  resume(co) out(debug.traceback(co)) out(debug.traceback(co, nil, 3))
  out(pcall(function() local f = wrap(function() local x = debug.traceback("inside") yield(x) end) out(f()) end))
  out(debug.traceback("here"))
end)

case("C handlers with a traceback", function()
  local function deep(n) if n == 0 then error("deep") end deep(n - 1) return 1 end
  out(xpcall(deep, debug.traceback, 3))
  out(xpcall(error, debug.traceback, {}))
  out(xpcall(error, debug.traceback))
  out(xpcall(function() xpcall(error, error, "x") error("y") end, debug.traceback))
  out(xpcall(function() local f = wrap(function() deep(2) end) f() end, debug.traceback))
end)

case("Lua handlers with a traceback", function()
  local function deep(n) if n == 0 then error("deep") end deep(n - 1) return 1 end
  for level = 0, 6 do
    out(xpcall(deep, function(e) return debug.traceback(e, level) end, 2))
    out(xpcall(deep, function(e) local t = debug.traceback(e, level) return t end, 2))
  end
end)

case("what a Lua handler sees of the stack", function()
  local function deep(n) if n == 0 then error("deep") end deep(n - 1) return 1 end
  for level = 1, 8 do
    out(xpcall(deep, function()
      local info = debug.getinfo(level, "nSl")
      return info and ("%s %s %s %s"):format(info.name, info.namewhat, info.what, info.currentline)
    end, 2))
    out(xpcall(deep, function() error("leveled", level) end, 2))
  end
  out(xpcall(deep, function(...) return select("#", ...), ... end, 2))
  out(xpcall(deep, function(e) return debug.getinfo(1, "t").istailcall end, 2))
end)

case("handlers that fail", function()
  local calls = 0
  out(xpcall(error, function(e) calls = calls + 1 error(e) end, "x")) out(calls)
  calls = 0
  out(xpcall(error, function(e) calls = calls + 1
    if calls < 5 then error("again " .. calls, 0) end return e end, "x")) out(calls)
  out(xpcall(error, function(e) return e.x.y end, "x"))
  out(xpcall(error, error, "x")) out(xpcall(error, error, nil))
  out(xpcall(error, function(e) local x = nil + e end, "x"))
  out(xpcall(error, function(e) return xpcall(error, function(i) return i .. e end, "inner ") end, "x"))
  out(xpcall(error, function(e) return select(2, xpcall(error, function(i) return i .. e end, "inner ")) end, "x"))
  out(xpcall(error, function(e) yield() end, "x"))
  out(xpcall(error, coroutine.wrap(function(e) out("wrapped handler", e) return e .. "!" end), "x"))
  out(xpcall(function() xpcall(error, function() error("inner handler") end) end, print))
  out(resume(create(function() return xpcall(error, function(e) error({}) end, "x") end)))
end)

case("C-stack overflow", function()
  local depth = 0
  local function nest() depth = depth + 1 return pcall(wrap(nest)) end
  out(nest()) out(depth)
  depth = 0
  local function by_resume() depth = depth + 1 return resume(create(by_resume)) end
  out(by_resume()) out(depth)
  depth = 0
  local function wraps() depth = depth + 1 return wrap(wraps)() end
  out(pcall(wraps)) out(depth)
  depth = 0
  local function xs() depth = depth + 1 return (select(2, xpcall(xs, function(e) return e end))) end
  out(xs()) out(depth)
  depth = 0
  local function closes()
    depth = depth + 1
    local co = create(function() local a <close> = setmetatable({}, { __close = closes }) yield() end)
    resume(co) local ok, e = coroutine.close(co) if not ok and depth < 300 then depth = 300 + depth out(e) end
  end
  closes() out(depth)
end)

case("stack overflow", function()
  local function forever() return 1 + forever() end
  local function short(ok, e) return ok, type(e) == "string" and e:match("^[^\n]*") end
  out(short(pcall(wrap(forever))))
  out(short(xpcall(forever, function(e) return e end)))
  out(short(xpcall(forever, debug.traceback)))
end)

case("names in messages", function()
  local f = wrap(function(...) return ... end)
  out(pcall(function() return ("x"):rep(f, 1) end))
  out(pcall(function() local t = {} t.f = coroutine.resume t.f(nil) end))
  out(pcall(function() coroutine:wrap() end))
  out(pcall(function() coroutine.close(nil) end))
  out(
    debug.getinfo(coroutine.resume, "S").what, debug.getinfo(xpcall, "u").nparams, debug.getinfo(xpcall, "u").isvararg)
end)
]=]

-- ---- Random programs -------------------------------------------------------------------------------------------

-- A program is a tree of function bodies without loops, so each one ends. They share a list of coroutines.
local function program(title)
  local count = 0

  local function pick(list)
    return list[math.random(#list)]
  end

  local function name()
    count = count + 1
    return count
  end

  local errors = { '"e%d"', '"e%d", 0', '"e%d", 2', "{ %d }", "nil --[[%d]]", "%d" }
  local handlers = {
    "debug.traceback", "rawequal", "type", "error", "function(e) out('handler', e) return e end",
    "function(e) error('again', 0) end", "function(e) return debug.traceback('in handler', 2) end",
    "function(e) return e, coroutine.running() end",
  }
  local body

  local statements = {
    function() return ("out(%d, ...)"):format(name()) end,
    function() return ("out(%d, pcall(coroutine.yield, %d, nil))"):format(name(), name()) end,
    function() return ("out(%d, coroutine.yield(%d))"):format(name(), name()) end,
    function() return ("if some() then error(%s) end"):format(pick(errors):format(name())) end,
    function(d) return ("out(%d, pcall(%s, %d, nil))"):format(name(), body(d), name()) end,
    function(d) return ("out(%d, xpcall(%s, %s, %d))"):format(name(), body(d), pick(handlers), name()) end,
    function(d) return ("add(coroutine.create(%s))"):format(body(d)) end,
    function(d) return ("add(coroutine.create(%s))"):format(body(d)) end,
    function(d) return ("wraps[#wraps + 1] = coroutine.wrap(%s)"):format(body(d)) end,
    function() return ("out(%d, coroutine.resume(any(%d), %d, nil))"):format(name(), name(), name()) end,
    function() return ("out(%d, coroutine.resume(any(%d)))"):format(name(), name()) end,
    function() return ("out(%d, pcall(any_wrap(%d), %d))"):format(name(), name(), name()) end,
    function() return ("out(%d, any_wrap(%d)(%d))"):format(name(), name(), name()) end,
    function() return ("out(%d, pcall(coroutine.close, any(%d)))"):format(name(), name()) end,
    function() return ("out(%d, coroutine.status(any(%d)))"):format(name(), name()) end,
    function() return ("out(%d, debug.traceback(any(%d)))"):format(name(), name()) end,
    function() return ("out(%d, coroutine.running())"):format(name()) end,
    function() return ("local c%d <close> = closer(%d, %s)"):format(
      name(), count, pick { "nil", "fail", "coroutine.yield", "function() out(coroutine.resume(any(1))) end" }) end,
    function(d) return ("for x in coroutine.wrap(%s) do out(x) if spent() then break end end"):format(body(d)) end,
    function(d) return ("out(setmetatable({}, { __add = %s }) + %d)"):format(body(d), name()) end,
    function(d) return ("out(pcall(table.sort, { 2, 1 }, %s))"):format(body(d)) end,
    function(d) return ("do local f = %s f(%d) end"):format(body(d), name()) end,
  }

  local needs_body = {}
  for _, statement in ipairs(statements) do
    needs_body[statement] = debug.getinfo(statement, "u").nparams > 0
  end

  function body(depth)
    local lines = {}
    for i = 1, math.random(5) do
      local statement
      repeat
        statement = pick(statements)
      until depth > 0 or not needs_body[statement]
      lines[i] = statement(depth - 1)
    end
    if math.random(3) == 1 then
      lines[#lines + 1] = ("do return %d, nil, ... end"):format(name())
    end
    return "function(...)\n" .. table.concat(lines, "\n") .. "\nend"
  end

  return table.concat({
    ("case(%q, function(...)"):format(title),
    "local list, wraps, steps = {}, {}, 0",
    "local function some() steps = steps + 1 return steps % " .. math.random(4) .. " == 0 end",
    "local function spent() steps = steps + 1 return steps > 300 end",
    "local function add(co) list[#list + 1] = co end",
    "local function any(n) return list[n % (#list + 1)] or coroutine.running() end",
    "local function any_wrap(n) return wraps[n % (#wraps + 1)] or coroutine.wrap(function(...) return ... end) end",
    "return (" .. body(4) .. ")(...)",
    "end)\n",
  }, "\n")
end

-- ---- Running ---------------------------------------------------------------------------------------------------

-- Runs the cases in a child; returns what each of them has printed, by its name. The file has the same name each
-- time: it is in the messages.
local function run(mode, path)
  local start = modes[mode]:gsub("%s+", " ")
  local pipe = assert(io.popen(("timeout 600 %s -e '%s' '%s' 2>&1"):format(lua, start, path)))
  local found, name, count = {}, "before the first", 0
  for line in pipe:lines() do
    local title = line:match("^== (.*)")
    if title then
      name, count = title, count + 1
      found[name] = {}
    else
      found[name] = found[name] or {}
      table.insert(found[name], line)
    end
  end
  local ok, _, status = pipe:close()
  assert.truthy(ok, ("%s: status %s in %s, seed %d: %s"):format(
    mode, status, name, seed, table.concat(found[name] or {}, "\n"):sub(-2000)))
  return found, count
end

local function run_all(source)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(prelude, source)
  file:close()
  local found, count = {}, {}
  for mode in pairs(modes) do
    found[mode], count[mode] = run(mode, path)
  end
  os.remove(path)
  return found, count
end

-- What is printed in a coroutine only: under ctx:pcall nothing runs at the top.
local function from_coroutine(lines)
  for i, line in ipairs(lines) do
    if line == "-- in a coroutine" then
      return table.move(lines, i, #lines, 1, {})
    end
  end
end

-- The first line that differs, with what comes before it.
local function assert_same_lines(expected, actual, title)
  for i = 1, math.max(#expected, #actual) do
    if expected[i] ~= actual[i] then
      error(("%s, seed %d, line %d:\n%s\nLua's own: %s\nlcontext:  %s"):format(title, seed, i,
        table.concat(expected, "\n", math.max(1, i - 5), i - 1), expected[i], actual[i]), 0)
    end
  end
end

local function titles(source)
  local list = {}
  for title in ("\n" .. source):gmatch("\ncase%(\"([^\"]+)\"") do
    list[#list + 1] = title
  end
  return list
end

-- Inside a guarded call a handler is called by a tail call, which these see; doc/stopping.md says so.
local sees_tail_call = {
  ["Lua handlers with a traceback"] = true,
  ["what a Lua handler sees of the stack"] = true,
}

local function compare(found, title)
  local plain, guarded = found.plain[title], found.guarded[title]
  assert.truthy(plain and #plain > 1, title)
  assert_same_lines(plain, found.loaded[title], title)
  if not sees_tail_call[title] then
    assert_same_lines(from_coroutine(plain), from_coroutine(guarded), title .. ", under ctx:pcall")
  end
end

describe("the drop-in coroutine functions and xpcall are as Lua's own:", function()
  local found

  lazy_setup(function()
    found = run_all(cases)
  end)

  for _, title in ipairs(titles(cases)) do
    it(title, function()
      compare(found, title)
    end)
  end
end)

describe("random programs of coroutines", function()
  it("print the same with the drop-in functions as with Lua's own", function()
    math.randomseed(seed)
    local source = {}
    for i = 1, PROGRAMS do
      source[i] = program("program " .. i)
    end
    local found, count = run_all(table.concat(source))
    assert.equal(PROGRAMS, count.plain)
    for i = 1, PROGRAMS do
      compare(found, "program " .. i)
    end
  end)
end)

describe("a test runner that puts the globals back", function()
  it("gets the drop-in xpcall with the next require", function()
    local child = require "spec.support.child"
    local output, status = child.run([[
      local lua_xpcall = xpcall
      local context = require "lcontext"
      local ours = xpcall
      xpcall = lua_xpcall
      package.loaded["lcontext"], package.loaded["lcontext.core"] = nil
      assert(require "lcontext" == context)
      assert(xpcall == ours and xpcall ~= lua_xpcall)
      xpcall = function() end -- somebody's own stays
      local own = xpcall
      package.loaded["lcontext"], package.loaded["lcontext.core"] = nil
      require "lcontext"
      assert(xpcall == own)
    ]])
    assert.equal(0, status, output)
  end)
end)
