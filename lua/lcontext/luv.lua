-- lcontext.luv: contexts in a luv loop. A poll handle watches the mailbox of this Lua state; it keeps the loop
-- alive for as long as a coroutine waits. Coroutines go on and callbacks run between the loop's own events.

local uv = require "luv"
local core = require "lcontext.core"
local tasks = require "lcontext.tasks"
local context = core.context
core.uninterrupted()

---@class lcontext.luv
local M = {}

-- Whatever else a coroutine yields is for a callback of luv to resume.
local queue = tasks.new(function() end)

-- poll: readable when something is due. soon: a timer that fires when there is something in the queue. before and
-- after: they look at what happened without an event of ours, before the loop sleeps and before it may end.
local handles

local function keep_alive(wanted)
  if wanted then
    handles.poll:ref()
  else
    handles.poll:unref()
  end
end

-- Of a step: whether what it is for has come.
local is_over

-- An error of a coroutine is raised to luv, as from any other callback; what is left has the next turn.
local function turn()
  context.dispatch()
  local ok, err = pcall(queue.turn, queue)
  if not queue:empty() then
    handles.soon:start(0, 0, turn)
  end
  keep_alive(core.waiting() > 0)
  if is_over and is_over() then
    uv.stop()
  end
  if not ok then
    error(err, 0)
  end
end

local function turn_soon()
  handles.soon:start(0, 0, turn)
end

local adapter = {
  resume = function(thread)
    queue:push(thread)
    turn_soon()
  end,
  spawn = function(f, on_end)
    queue:spawn(tasks.run_callback, f).on_end = on_end
    turn_soon()
  end,
  due = turn_soon,
  park = function()
    keep_alive(true)
  end,
}

function adapter.step(over)
  if uv.loop_mode() then
    return nil, "cannot wait here: the luv loop would have to run inside one of its callbacks"
  end
  if not uv.loop_alive() then
    return nil, "cannot wait: there is nothing left in the luv loop"
  end
  is_over = over
  local ok, err = pcall(uv.run, "once")
  is_over = nil
  if not ok then
    error(err, 0)
  end
  return true
end

local function open_handles(fd)
  local poll, err = uv.new_poll(fd)
  if not poll then
    return nil, err
  end
  local opened = { poll = poll, soon = uv.new_timer(), before = uv.new_prepare(), after = uv.new_check() }
  poll:unref()
  opened.before:unref()
  opened.after:unref()
  return opened
end

---Makes waits resumable in the loop of luv, and has it run callbacks of `after_func`.
---@return true? attached nil if there is no descriptor to be had
---@return string? err
function M.attach()
  if not handles then
    local fd, err = context.pollfd()
    if fd then
      handles, err = open_handles(fd)
    end
    if not handles then
      return nil, err
    end
  end
  handles.poll:start("r", turn)
  handles.before:start(turn)
  handles.after:start(turn)
  core.attach(adapter)
  keep_alive(core.waiting() > 0) -- with what another loop was to wake
  if not queue:empty() then
    turn_soon()
  end
  return true
end

---Undoes attach. Coroutines that wait go on when a loop is attached again.
function M.detach()
  if core.attached() == adapter then
    core.attach(nil)
    handles.poll:stop()
    handles.before:stop()
    handles.after:stop()
    handles.soon:stop()
  end
end

return M
