-- guarded.lua: ctx:pcall and ctx:call, for script_memory_test.c: see everything.lua. What an inner call has caught is
-- raised again.
local step, light, everything = ...

step "the module"
local context = require "lcontext"
local background = context.background()

local function forever()
  while true do end
end

local function passed(ok, ...)
  if not ok then
    error(..., 0)
  end
  return ...
end

local function stopped(ok, err)
  if ok or err ~= context.DeadlineExceeded then
    error(err, 0)
  end
end

local function soon()
  return context.with_timeout(background, 0.0005)
end

context.interrupt { grace = 0.001 }

step "a call"
local outer <close> = context.with_timeout(background, 60)
assert(passed(outer:pcall(math.max, 1, 2)) == 2 and outer:call(math.max, 1, 2) == 2)

step "a runaway"
stopped(soon():pcall(forever))

step "a runaway in ctx:call"
stopped(pcall(soon().call, soon(), forever))

step "a runaway in a coroutine"
stopped(soon():pcall(function()
  coroutine.wrap(function()
    local _ <close> = setmetatable({}, { __close = function() end })
    forever()
  end)()
end))

step "a runaway in xpcall"
stopped(soon():pcall(xpcall, forever, print))

step "a runaway in calls in calls"
passed(outer:pcall(function()
  stopped(soon():pcall(function()
    passed(outer:pcall(outer.call, outer, forever))
  end))
end))

step "a call that is suspended"
do
  local thread = coroutine.create(outer.pcall)
  passed(coroutine.resume(thread, outer, coroutine.yield))
  stopped(soon():pcall(forever))
  passed(coroutine.resume(thread))
  passed(coroutine.close(coroutine.create(print)))
end

step "a wait that is stopped"
stopped(soon():pcall(function()
  context.with_cancel(background):done():wait()
end))

step "counting"
local settings = context.interrupt()
local _ <close> = setmetatable({}, { __close = function() context.interrupt(settings) end })
context.interrupt { mode = "count", count = 10, grace = 0.001 }
stopped(soon():pcall(forever))
stopped(soon():pcall(function()
  coroutine.wrap(forever)()
end))
context.interrupt(settings)

step "everything"
passed(outer:pcall(everything, function(name) step("guarded: " .. name) end, light))
