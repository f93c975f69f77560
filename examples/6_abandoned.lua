-- Work that nobody wants any more.
--
-- A job holds a temporary file, and removes it when its context ends. Its owner should cancel the job, but
-- forgets, and drops it. Then the garbage collector finds that nothing can reach the context, and ends it: the
-- callback runs, and neither the file nor anything in memory stays behind. (This is the safety net, for contexts
-- that would else never end. One with a callback and a deadline of its own waits for the deadline.)

local context = require "lcontext"

local function exists(path)
  local file = io.open(path)
  return file ~= nil and file:close()
end

local function start_job()
  local path = os.tmpname()
  assert(io.open(path, "w")):close()

  local ctx, cancel = context.with_cancel(context.background())
  -- The callback may refer to its own context: that does not keep the context.
  context.after_func(ctx, function()
    os.remove(path)
    print("callback: the context ended (" .. ctx:err() .. "), the file is removed")
  end)
  -- A step of the job has a time limit, hence a timer.
  return { path = path, cancel = cancel, step = ctx:with_timeout(3600) }
end

local function show(when, path)
  local stats = context.stats()
  print(("%s: contexts %d, live %d, timers %d, callbacks %d, file %s"):format(
    when, stats.contexts, stats.live, stats.timers, stats.callbacks, exists(path) and "there" or "gone"))
end

local jobs = { start_job() }
local path = jobs[1].path
show("working", path)

collectgarbage() -- the job can be reached: nothing happens
show("still owned", path)

jobs[1] = nil
print("abandoned")
collectgarbage() -- finds the context, and ends it
context.dispatch() -- callbacks run here, never within the collector
show("collected", path)
