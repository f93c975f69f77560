-- For tests in which something has to happen before a deadline: on a busy machine a process, or a thread, may stand
-- still for a while between any two statements, and the deadline is over first.

local context = require "lcontext"

local busy = {}

---Calls f(seconds), with more and more seconds, until its first result is true, that is, until everything has
---happened in time; returns what f has returned then.
---@param f fun(seconds: number): any
function busy.in_time(f)
  local seconds = 0.01
  for _ = 1, 12 do
    local results = table.pack(f(seconds))
    if results[1] then
      return table.unpack(results, 1, results.n)
    end
    seconds = seconds * 2
  end
  error("never in time", 2)
end

---ctx:pcall(f) of a context with a deadline that comes soon, but not before f has begun.
---@param f fun()
function busy.pcall_until_deadline(f)
  local results
  busy.in_time(function(seconds)
    local begun = false
    local ctx = context.with_timeout(context.background(), 2 * seconds)
    results = table.pack(ctx:pcall(function()
      begun = true
      return f()
    end))
    return begun
  end)
  return table.unpack(results, 1, results.n)
end

---A coroutine that waits in f(seconds), for so long that the time is not up before it can wait; and the seconds.
---@param f fun(seconds: number)
function busy.waiting(f)
  local co, limit
  busy.in_time(function(seconds)
    co, limit = coroutine.create(f), seconds
    assert(coroutine.resume(co, seconds))
    return coroutine.status(co) == "suspended"
  end)
  return co, limit
end

---For a program that counts on time and cannot be told how much of it there is: check() may fail once, and says so.
---@param check fun()
function busy.again(check)
  local ok, err = pcall(check)
  if not ok then
    io.stderr:write("\ntried again: ", tostring(type(err) == "table" and err.message or err), "\n")
    check()
  end
end

---Waits, for seconds at most, until f() is true: what another thread does may take a while.
---@param f fun(): boolean
function busy.settles(f)
  local till = context.now() + 10
  while not f() do
    if context.now() > till then
      return false
    end
    context.select(0.002)
  end
  return true
end

return busy
