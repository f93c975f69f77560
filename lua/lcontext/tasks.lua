-- lcontext.tasks: the run queue of loops that resume coroutines themselves (lcontext.loop, lcontext.luv). It
-- knows which coroutines can go on; when the loop has a turn for them is the loop's business.

local core = require "lcontext.core"
local context = core.context
core.uninterrupted()

---@class lcontext.Task
---@field package thread thread
---@field package on_end? function called when it has ended, however it has
local Task = {}
Task.__index = Task
Task.__name = "lcontext.Task"

---@class lcontext.Queue
---@field package ready table coroutines that can go on, each with what it is resumed with; indices first..last
---@field package first integer
---@field package last integer
---@field package tasks table<thread, lcontext.Task> those that were spawned and have not ended
---@field package on_yield fun(thread: thread) a coroutine has yielded something that is not waited for here
local Queue = {}
Queue.__index = Queue

local tasks = {}

---@param on_yield fun(thread: thread)
---@return lcontext.Queue
function tasks.new(on_yield)
  return setmetatable({ ready = {}, first = 1, last = 0, tasks = {}, on_yield = on_yield }, Queue)
end

---@return boolean
function Queue:empty()
  return self.first > self.last
end

---@return boolean busy a task that was spawned has not ended
function Queue:busy()
  return next(self.tasks) ~= nil
end

---The coroutine goes on at the next turn.
---@param thread thread
---@param ... any what it is resumed with
function Queue:push(thread, ...)
  self.last = self.last + 1
  self.ready[self.last] = table.pack(thread, ...)
end

-- A to-be-closed value on the stack of each task: however that ends, also when somebody else closes it or
-- resumes it to its end, its queue stops counting it.
local Ending = {}

function Ending.__close(ending)
  ending.queue:forget(coroutine.running())
end

local function body(ending, f, ...)
  local _ <close> = ending
  return f(...)
end

-- A task has ended.
---@package
function Queue:forget(thread)
  local task = self.tasks[thread]
  self.tasks[thread] = nil
  if task and task.on_end then
    task.on_end()
  end
end

---Starts a task: a coroutine that runs `f(...)`, from the next turn on.
---@param f function
---@param ... any arguments for f
---@return lcontext.Task
function Queue:spawn(f, ...)
  local thread = coroutine.create(body)
  local task = setmetatable({ thread = thread }, Task)
  self.tasks[thread] = task
  self:push(thread, setmetatable({ queue = self }, Ending), f, ...)
  return task
end

---Raises in the caller of the function `name` if f, its first argument, cannot be called.
---@param f any
---@param name string
function tasks.check_function(f, name)
  local meta = getmetatable(f)
  if type(f) ~= "function" and not (type(meta) == "table" and meta.__call) then
    error(("bad argument #1 to '%s' (function expected, got %s)"):format(name, type(f)), 3)
  end
end

---How an error prints, whatever its __tostring does.
---@param err any
---@return string
function tasks.printed(err)
  local ok, text = pcall(tostring, err)
  return ok and text or type(err)
end

---Raises the error of a coroutine that has failed. A string gets its traceback behind it. Anything else is passed on as
---it is, so that it can still be compared; the traceback goes to warn().
---@param what string "a task", say
---@param thread thread
---@param err any
function tasks.fail(what, thread, err)
  local traceback = debug.traceback(thread)
  coroutine.close(thread)
  if type(err) == "string" then
    error(err .. "\nin " .. what .. ", " .. traceback, 0)
  end
  warn("lcontext: ", what, " failed with ", tasks.printed(err), "\n", traceback)
  error(err, 0)
end

-- Dones and seconds that a coroutine has yielded are waited for by a coroutine of their own, so that everything
-- is waited for in one way.
local function await(self, thread, ...)
  local waiter = core.create(function(...)
    local ok, what = pcall(context.select, ...)
    if ok then
      self:push(thread, what)
    else
      self.on_yield(thread)
    end
  end)
  local started, err = coroutine.resume(waiter, ...)
  core.parked(waiter)
  if not started then
    self:forget(thread)
    error(err, 0)
  end
end

-- Decides what a coroutine that has yielded waits for: a wait() of its own has registered it already.
local function suspend(self, thread, ...)
  if core.parked(thread) then
    return
  end
  if select("#", ...) > 0 then
    await(self, thread, ...)
  else
    self.on_yield(thread)
  end
end

local function after_resume(self, thread, ok, ...)
  if coroutine.status(thread) ~= "dead" then
    suspend(self, thread, ...)
    return
  end
  self:forget(thread)
  if not ok then
    tasks.fail("a task", thread, ...)
  end
end

---One turn: what is ready now. What becomes ready meanwhile has its turn next. Raises the error of a coroutine
---that has failed; the others keep their places.
function Queue:turn()
  local stop, ready = self.last, self.ready
  while self.first <= stop do
    local entry = ready[self.first]
    ready[self.first] = nil
    self.first = self.first + 1
    local thread = entry[1]
    if coroutine.status(thread) == "suspended" then
      after_resume(self, thread, coroutine.resume(thread, table.unpack(entry, 2, entry.n)))
    else
      self:forget(thread) -- closed by somebody else
    end
  end
end

local function report(err)
  warn("lcontext: error in a callback: ", debug.traceback(tasks.printed(err), 2))
end

---Runs a callback of after_func in a task: its error is its own, and is reported.
---@param f function
function tasks.run_callback(f)
  xpcall(f, report)
end

return tasks
