-- lcontext.loop: a small event loop for programs that have none. It knows tasks and contexts, nothing else:
-- a wait with a time limit is a context with a deadline, and everything that is due comes through the one
-- mailbox of this Lua state, in which the loop sleeps.

local core = require "lcontext.core"
local context = core.context

---@class lcontext.loop
local loop = {}

---@class lcontext.Task
---@field package thread thread
local Task = {}
Task.__index = Task
Task.__name = "lcontext.Task"

-- Coroutines that can go on, each with what it is resumed with; a queue with the indices first..last.
local ready, first, last = {}, 1, 0
-- thread -> task, of the tasks that have not ended.
local tasks = {}
local running = false

local function enqueue(thread, ...)
  last = last + 1
  ready[last] = table.pack(thread, ...)
end

-- A to-be-closed value on the stack of each task: however that ends, also when somebody else closes it or
-- resumes it to its end, the loop stops counting it.
local ending = setmetatable({}, {
  __close = function()
    tasks[coroutine.running()] = nil
  end,
})

local function body(f, ...)
  local _ <close> = ending
  return f(...)
end

---Starts a task: a coroutine that runs `f(...)`. It begins when the loop runs next.
---@param f function
---@param ... any arguments for f
---@return lcontext.Task
function loop.spawn(f, ...)
  if type(f) ~= "function" then
    local meta = getmetatable(f)
    if type(meta) ~= "table" or not meta.__call then
      error(("bad argument #1 to 'spawn' (function expected, got %s)"):format(type(f)), 2)
    end
  end
  local thread = coroutine.create(body)
  local task = setmetatable({ thread = thread }, Task)
  tasks[thread] = task
  enqueue(thread, f, ...)
  return task
end

-- An error that is a string gets the task's traceback behind it. Any other is passed on as it is, so that it
-- can still be compared; its traceback goes to warn().
local function fail(thread, err)
  local traceback = debug.traceback(thread)
  coroutine.close(thread)
  if type(err) == "string" then
    error(err .. "\nin a task, " .. traceback, 0)
  end
  local printable, text = pcall(tostring, err)
  warn("lcontext: a task failed with ", printable and text or type(err), "\n", traceback)
  error(err, 0)
end

local await

-- Decides what a coroutine that has yielded waits for: a wait() of its own has registered it already; Done
-- objects or seconds that it has yielded are waited for here; after any other yield it goes on at its next turn.
local function suspend(thread, ...)
  if core.parked(thread) then
    return
  end
  if select("#", ...) > 0 then
    return await(thread, ...)
  end
  enqueue(thread)
end

-- The waiter is a coroutine of its own, so that everything is waited for in one way.
function await(thread, ...)
  local waiter = coroutine.create(function(...)
    local ok, what = pcall(context.select, ...)
    if ok then
      enqueue(thread, what)
    else
      enqueue(thread)
    end
  end)
  coroutine.resume(waiter, ...)
  core.parked(waiter)
end

local function after_resume(thread, ok, ...)
  if coroutine.status(thread) ~= "dead" then
    return suspend(thread, ...)
  end
  tasks[thread] = nil
  if not ok then
    fail(thread, ...)
  end
end

-- One turn: what is ready now. What becomes ready meanwhile has its turn next.
local function turn()
  local stop = last
  while first <= stop do
    local entry = ready[first]
    ready[first] = nil
    first = first + 1
    local thread = entry[1]
    if coroutine.status(thread) == "suspended" then
      after_resume(thread, coroutine.resume(thread, table.unpack(entry, 2, entry.n)))
    else
      tasks[thread] = nil -- closed by somebody else
    end
  end
end

local function callback_failed(err)
  warn("lcontext: error in a callback: ", debug.traceback(tostring(err), 2))
end

local adapter = {
  resume = enqueue,
  spawn = function(f)
    loop.spawn(xpcall, f, callback_failed)
  end,
}

local function run_all()
  repeat
    while next(tasks) do
      context.dispatch(first > last and math.huge or 0)
      turn()
    end
    context.dispatch() -- a callback that the last task has made due is a task, too
  until not next(tasks)
end

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
  local before = core.attach(adapter)
  running = true
  local ok, err = xpcall(run_all, function(e) return e end)
  running = false
  core.attach(before)
  if not ok then
    error(err, 0)
  end
end

---Waits in a task (outside of one it blocks).
---@param seconds number
---@param ctx? lcontext.Context ends the sleep when it ends
---@return true? slept nil if ctx ended first
---@return lcontext.Error? err of ctx
function loop.sleep(seconds, ctx)
  local done = ctx and ctx:done()
  if done and context.select(done, seconds) == done then
    return nil, ctx:err()
  elseif not done then
    context.select(seconds)
  end
  return true
end

return loop
