-- Starts the service and what it asks, shows what happens when things go wrong, and stops all of it.
--
--   make service        (or: lua5.4 exercise.lua, with redis-server and curl at hand)

package.path = (arg[0]:match("^.*/") or "./") .. "?.lua;" .. package.path

local context = require "lcontext"
local group = require "lcontext.group"
local loop = require "lcontext.loop"
local luv = require "lcontext.luv"
local processes = require "processes"

local DEADLINE = 0.5

local function show(title, answer, start)
  print(("\n== %s (%.2f s)"):format(title, context.now() - start))
  print((answer:gsub("\n$", "")))
end

local function ask(stack, title)
  local start = context.now()
  show(title, stack:curl("service", "/"), start)
end

local function hang_up(stack)
  local start = context.now()
  local _, code = stack:curl("service", "/", "--max-time", "0.1")
  loop.sleep(0.05)
  show("The client hangs up", ("curl says %d\nsearch: %s"):format(code, stack:curl("search", "/report")), start)
end

local function shut_down_under_way(stack)
  local start = context.now()
  local asking = group.new(context.background())
  asking:go(function() show("SIGTERM while a request is under way", stack:curl("service", "/"), start) end)
  loop.sleep(0.1)
  local code = processes.stop(stack.service)
  assert(asking:wait())
  print(("the service has stopped with status %d"):format(code))
end

local function exercise()
  local stack <close> = processes.start_stack(tostring(DEADLINE))
  print("The deadline is " .. DEADLINE .. " s.")
  ask(stack, "All is well")
  stack:curl("search", "/delay/60")
  ask(stack, "Search hangs")
  processes.run("redis-cli", "-p", stack.redis.port, "client", "pause", "1000")
  ask(stack, "Redis hangs, too")
  hang_up(stack)
  shut_down_under_way(stack)
end

luv.attach()
local exercises = group.new(context.background())
exercises:go(exercise)
assert(exercises:wait())
