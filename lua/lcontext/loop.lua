-- lcontext.loop: a small event loop for programs that have none. It knows tasks and contexts, nothing else:
-- a wait with a time limit is a context with a deadline, and everything that is due comes through the one
-- mailbox of this Lua state, in which the loop sleeps.

local core = require "lcontext.core"
local tasks = require "lcontext.tasks"
local context = core.context
core.uninterrupted()

---@class lcontext.loop
local loop = {}

local queue
queue = tasks.new(function(thread)
  queue:push(thread) -- it only lets others go first
end)

local running = false

---Starts a task: a coroutine that runs `f(...)`. It begins when the loop runs next.
---@param f function
---@param ... any arguments for f
---@return lcontext.Task
function loop.spawn(f, ...)
  tasks.check_function(f, "spawn")
  return queue:spawn(f, ...)
end

-- Sleeps until something can go on, and lets it. False and the error if a task has failed.
local function step()
  context.dispatch(queue:empty() and math.huge or 0)
  return pcall(queue.turn, queue)
end

local function run_all()
  repeat
    while queue:busy() or not queue:empty() do
      local ok, err = step()
      if not ok then
        error(err, 0)
      end
    end
    context.dispatch() -- a callback that the last task has made due is a task, too
  until queue:empty()
end

local adapter = {
  resume = function(thread)
    queue:push(thread)
  end,
  spawn = function(f, on_end)
    queue:spawn(tasks.run_callback, f).on_end = on_end
  end,
}

-- Calls f with the loop attached.
local function run_attached(f)
  local before = core.attach(adapter)
  running = true
  local ok, result, err = pcall(f)
  running = false
  core.attach(before)
  if not ok then
    error(result, 0)
  end
  return result, err
end

function adapter.step()
  if running then
    return step()
  end
  return run_attached(step)
end

---What lcontext.group uses where no loop is attached.
---@package
loop.adapter = adapter

---Runs tasks until none is left; `f(...)` is the first if given. An error in a task is raised here, with the
---task's traceback; the other tasks are kept, and go on with the next `run`.
---@param f? function
---@param ... any arguments for f
function loop.run(f, ...)
  if running then
    error("the loop is running already", 2)
  end
  if f then
    loop.spawn(f, ...)
  end
  run_attached(run_all)
end

local function check_argument(ok, position, expected, value)
  if not ok then
    error(("bad argument #%d to 'sleep' (%s expected, got %s)"):format(position, expected, type(value)), 3)
  end
end

-- Custom contexts are any tables and userdata with the methods of one.
local function is_context(value)
  if type(value) ~= "userdata" and type(value) ~= "table" then
    return false
  end
  local ok, done = pcall(function() return value.done end)
  return ok and done ~= nil
end

---Waits in a task (outside of one it blocks).
---@param seconds number
---@param ctx? lcontext.Context ends the sleep when it ends
---@return true? slept nil if ctx ended first
---@return lcontext.Error? err of ctx
function loop.sleep(seconds, ctx)
  check_argument(type(seconds) == "number", 1, "number", seconds)
  check_argument(ctx == nil or is_context(ctx), 2, "context", ctx)
  local done = ctx and ctx:done()
  if done and context.select(done, seconds) == done then
    return nil, ctx:err()
  elseif not done then
    context.select(seconds)
  end
  return true
end

return loop
