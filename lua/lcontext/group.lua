-- lcontext.group: tasks that belong together, as Go's errgroup, and as a scope: none outlives it.

local core = require "lcontext.core"
local tasks = require "lcontext.tasks"
local context = core.context

---@class lcontext.group
local group = {}

---@class lcontext.Group
---@field package ctx lcontext.Context
---@field package cancel lcontext.Cancel
---@field package limit number tasks at once
---@field package count integer tasks that run
---@field package failed boolean
---@field package err any the first error
---@field package reported boolean wait() has returned it
---@field package over boolean wait() has returned, or the scope was left
---@field package loop? table whose tasks they are: the one that was attached when the first was started
---@field package ended? lcontext.Cancel tells those who wait that a task has ended
---@field package ended_done? lcontext.Done
local Group = {}
Group.__index = Group
Group.__name = "lcontext.Group"

---A group under parent, and the context that its tasks get. It ends with the first error of a task as its cause,
---when `wait` returns, and when the scope of a `<close>` variable that holds the group is left.
---@param parent lcontext.Context
---@return lcontext.Group
---@return lcontext.Context ctx
function group.new(parent)
  local ctx, cancel = context.with_cancel(parent)
  return setmetatable({ ctx = ctx, cancel = cancel, limit = math.huge, count = 0, failed = false }, Group), ctx
end

-- Without an attached loop, the tasks are those of the embedded one; a wait outside of coroutines runs it.
local function loop_of(self)
  self.loop = self.loop or core.attached() or require("lcontext.loop").adapter
  return self.loop
end

-- In the main coroutine: a task waits, and the loop runs until that has ended, in whichever way. An error of somebody
-- else's task that comes up meanwhile is returned, as { err }: it is not lost, and ends nothing.
local function run_until(self, ...)
  local dones, over, failure = table.pack(...), false, nil
  local loop = loop_of(self)
  loop.spawn(function()
    context.select(table.unpack(dones, 1, dones.n))
  end, function()
    over = true
  end)
  local function is_over()
    return over
  end
  while not over do
    local stepped, err = loop.step(is_over)
    if stepped == nil then
      error(err, 0)
    end
    failure = failure or not stepped and { err } or nil
  end
  return failure
end

-- Waits until a task has ended, or ctx if one is given; may return before.
local function await_end(self, ctx)
  if not self.ended then
    local event
    event, self.ended = context.with_cancel(context.background())
    self.ended_done = event:done()
  end
  local done, other = self.ended_done, ctx and ctx:done()
  if not coroutine.isyieldable() then
    return run_until(self, done, other)
  end
  context.select(done, other)
end

local function task_has_ended(self)
  self.count = self.count - 1
  local ended = self.ended
  if ended then
    self.ended, self.ended_done = nil, nil
    ended()
  end
end

local function fail(self, err)
  if self.failed then
    return
  end
  self.failed, self.err = true, err
  self.cancel(err)
end

local function with_traceback(err)
  if err == nil or type(err) == "string" then
    return debug.traceback(tostring(err), 2)
  end
  return err
end

local function settle(self, called, ok, result, err)
  if not called then
    ok, result = false, ok
  end
  if not ok then
    fail(self, result)
  elseif result == nil and err ~= nil then
    fail(self, err)
  end
end

-- Whatever fails on the way, also for lack of memory: the count is of tasks that will end.
local function start(self, f, ...)
  local arguments = table.pack(...)
  local function run()
    settle(self, pcall(xpcall, f, with_traceback, self.ctx, table.unpack(arguments, 1, arguments.n)))
  end
  local function on_end()
    task_has_ended(self)
  end
  self.count = self.count + 1
  local ok, err = pcall(loop_of(self).spawn, run, on_end)
  if not ok then
    on_end()
    error(err, 0)
  end
end

-- Work that was asked for and is not done: wait() must not call that a success.
local function refuse(self)
  local err = self.ctx:err()
  if not self.over then
    fail(self, err)
  end
  return nil, err
end

local function raise(failure)
  if failure then
    error(failure[1], 0)
  end
end

---Runs `f(ctx, ...)` as a task of the attached loop. It fails by raising (a string gets the traceback behind it) or
---by returning `nil, err`. Waits as long as there are as many tasks as the limit allows.
---@param f function
---@param ... any arguments for f, after ctx
---@return true? started nil if ctx has ended
---@return lcontext.Error? err of ctx
function Group:go(f, ...)
  tasks.check_function(f, "go")
  while self.count >= self.limit and not self.ctx:err() do
    raise(await_end(self, self.ctx))
  end
  if self.ctx:err() then
    return refuse(self)
  end
  start(self, f, ...)
  return true
end

---As go, but does not wait.
---@param f function
---@param ... any
---@return boolean? started false: there are as many tasks as the limit allows; nil: ctx has ended
---@return lcontext.Error? err of ctx
function Group:try_go(f, ...)
  tasks.check_function(f, "try_go")
  if self.ctx:err() then
    return refuse(self)
  end
  if self.count >= self.limit then
    return false
  end
  start(self, f, ...)
  return true
end

---How many tasks may run at once. Only while none does.
---@param n integer negative: no limit; 0: none
function Group:set_limit(n)
  if n ~= math.huge and not math.tointeger(n) then
    error(("bad argument #1 to 'set_limit' (integer expected, got %s)"):format(math.type(n) or type(n)), 2)
  end
  if self.count > 0 then
    error(("cannot set the limit of a group while %d of its tasks run"):format(self.count), 2)
  end
  self.limit = n < 0 and math.huge or n
end

local function join(self)
  local failure
  while self.count > 0 do
    failure = await_end(self) or failure
  end
  self.over = true
  return failure
end

---Waits until all tasks have ended, and cancels ctx. (In the main coroutine this runs the loop: an error of a task
---that is not the group's is raised here then, after that.)
---@return true? ok nil if a task has failed
---@return any err the first error
function Group:wait()
  local failure = join(self)
  self.cancel()
  self.reported = true
  raise(failure)
  if self.failed then
    return nil, self.err
  end
  return true
end

---The scope is left: cancels, with the error by which it is left as the cause, and waits.
function Group:__close(err)
  local unseen = self.failed and not self.reported
  self.cancel(err)
  local failure = join(self)
  if unseen then
    warn("lcontext: a task of a group failed, and nobody has waited: ", tasks.printed(self.err))
  end
  raise(failure)
end

return group
