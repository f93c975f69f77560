-- Lua in threads of luv, each with a state of its own. Upvalues are not there: everything that a function needs is an
-- argument, and may be nil, a boolean, a number or a string.
--
-- luv 1.48, of Debian 13, destroys memory when a state that has made threads with new_thread is closed (by itself,
-- without this library). From libuv 1.45 on, the threads are therefore those of luv's pool.

local uv = require "luv"

local threads = {}

local has_sound_threads = uv.version() < 0x012D00

-- luv keeps the states of its pool for the next piece of work: what this one has left goes.
local function run(code, ...)
  require("lcontext")
  local returned = table.pack(load(code)(...))
  collectgarbage()
  collectgarbage()
  return table.unpack(returned, 1, returned.n)
end

local function start_in_pool(f, ...)
  local results
  uv.new_work(run, function(...) results = table.pack(...) end):queue(string.dump(f), ...)
  return function()
    while not results do
      uv.run("once")
    end
    return table.unpack(results, 1, results.n)
  end
end

---Starts f(...) in a thread; returns an object with join().
function threads.start(f, ...)
  if has_sound_threads then
    return uv.new_thread(f, ...)
  end
  local wait = start_in_pool(f, ...)
  return { join = function() wait() end }
end

---Runs f(...) in a thread and returns its results.
function threads.call(f, ...)
  return start_in_pool(f, ...)()
end

return threads
