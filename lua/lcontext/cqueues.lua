-- lcontext.cqueues: contexts in a controller of cqueues. One coroutine of the controller, the pump, polls the
-- mailbox of this Lua state; a coroutine of cqueues that waits polls a condition, which is signalled then.
--
-- Without this, too, a Done can be polled: cqueues.poll(ctx:done(), socket, 5).

local cqueues = require "cqueues"
local condition = require "cqueues.condition"
local core = require "lcontext.core"
local tasks = require "lcontext.tasks"
local context = core.context
core.uninterrupted()

---@class lcontext.cqueues
local M = {}

---@class lcontext.Pump
---@field controller table
---@field adapter table
---@field wake table condition: there is something to look at
---@field attached boolean
---@field running boolean its coroutine is in the controller
---@field starting table functions and their arguments, to be started in this order; indices first..last
---@field first integer
---@field last integer
local Pump = {}
Pump.__index = Pump

---@type lcontext.Pump? the one that is attached
local current

-- controller -> its pump
local pumps = setmetatable({}, { __mode = "k" })

local mailbox = {
  pollfd = function() return (context.pollfd()) end,
  events = function() return "r" end,
}

-- cqueues resumes what is new in the reverse order. So whichever new coroutine is resumed first takes what has
-- waited longest.
local function start_next(pump)
  local first = pump.first
  local entry = pump.starting[first]
  pump.starting[first], pump.first = nil, first + 1
  entry[1](table.unpack(entry, 2, entry.n))
end

function Pump:spawn(...)
  self.last = self.last + 1
  self.starting[self.last] = table.pack(...)
  self.controller:wrap(start_next, self)
end

-- However the coroutine of a pump ends, also when it is stopped with a call that the controller ran in.
function Pump:__close()
  self.running = false
end

local function pump_mail(self)
  local _ <close> = self
  while self.attached do
    cqueues.poll(mailbox, self.wake)
    local ok, err = pcall(context.dispatch)
    if not ok then
      self:spawn(error, err, 0)
    end
  end
end

function Pump:start()
  if not self.running then
    self.running = true
    self.controller:wrap(pump_mail, self)
  end
end

-- The coroutines of cqueues that are in a wait -> the condition that each polls.
local parked = setmetatable({}, { __mode = "k" })

local function is_run_by_cqueues()
  local _, directly = cqueues.running()
  return directly
end

-- Resumes a coroutine that another one has made, or the main one. Its error is that of a coroutine of cqueues.
local function resume_nested(thread)
  if coroutine.status(thread) ~= "suspended" then
    return -- closed by somebody else
  end
  local ok, err = coroutine.resume(thread)
  if not ok then
    tasks.fail("a coroutine", thread, err)
  end
end

local function run_task(f, ending)
  local _ <close> = ending
  tasks.run_callback(f)
end

local function new_adapter(pump)
  local adapter = {}

  function adapter.resume(thread)
    local wake = parked[thread]
    if wake then
      parked[thread] = nil
      wake:signal()
    else
      pump:spawn(resume_nested, thread)
    end
  end

  function adapter.spawn(f, on_end)
    pump:start()
    pump:spawn(run_task, f, on_end and setmetatable({}, { __close = on_end }))
  end

  function adapter.park(thread)
    pump:start()
    if is_run_by_cqueues() then
      parked[thread] = parked[thread] or condition.new()
      return cqueues.poll, parked[thread]
    end
  end

  function adapter.step()
    if cqueues.running() then
      return nil, "cannot wait here: the controller would have to run inside one of its coroutines"
    end
    local ok, err = pump.controller:step()
    return not not ok, err
  end

  return adapter
end

local function pump_of(controller)
  local pump = pumps[controller]
  if not pump then
    pump = setmetatable({ controller = controller, wake = condition.new(), running = false, starting = {}, first = 1,
      last = 0 }, Pump)
    pump.adapter = new_adapter(pump)
    pumps[controller] = pump
  end
  return pump
end

-- A pump alone does not keep its controller from being empty.
local count, empty
count = cqueues.interpose("count", function(controller)
  local pump = pumps[controller]
  return count(controller) - ((pump and pump.running) and 1 or 0)
end)

empty = cqueues.interpose("empty", function(controller)
  local pump = pumps[controller]
  if not pump then
    return empty(controller)
  end
  if pump.attached then
    pump:start()
    context.dispatch() -- what the last coroutine has made due
  end
  if controller:count() > 0 or (pump.attached and core.waiting() > 0) then
    return false
  end
  pump.wake:signal() -- else the next loop() would begin with a sleep
  return true
end)

-- In a coroutine of cqueues a Done that is yielded is polled.
-- luacheck: globals coroutine.yield
local yield = coroutine.yield

local function yield_or_poll(...)
  local first = ...
  if type(first) == "userdata" and getmetatable(first) == "Done" and is_run_by_cqueues() then
    return yield(cqueues._POLL, ...)
  end
  return yield(...)
end

---Makes waits resumable in this controller, and has it run callbacks of `after_func`. From now on,
---`coroutine.yield(done)` in a coroutine of cqueues polls the Done.
---@param controller table as cqueues.new() gives
---@return true? attached nil if there is no descriptor to be had
---@return string? err
function M.attach(controller)
  if cqueues.type(controller) ~= "controller" then
    error(("bad argument #1 to 'attach' (controller expected, got %s)"):format(type(controller)), 2)
  end
  local fd, err = context.pollfd()
  if not fd then
    return nil, err
  end
  M.detach()
  local pump = pump_of(controller)
  pump.attached = true
  pump:start()
  current = pump
  core.attach(pump.adapter)
  if coroutine.yield == yield then
    coroutine.yield = yield_or_poll
  end
  return true
end

---Undoes attach. Coroutines of the controller that wait go on with it, others when a loop is attached again.
function M.detach()
  local pump = current
  if not pump then
    return
  end
  if core.attached() == pump.adapter then
    core.attach(nil)
  end
  if coroutine.yield == yield_or_poll then
    coroutine.yield = yield
  end
  pump.attached = false
  pump.wake:signal()
  current = nil
end

return M
