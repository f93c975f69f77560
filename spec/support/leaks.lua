-- Holds every test to leaving nothing behind: what context.stats() counts is after a test what it was before.
--
--   local leaks = require "spec.support.leaks"
--   before_each(leaks.before)
--   after_each(leaks.after)

local context = require "lcontext"
local busy = require "spec.support.busy"

local leaks = {}
local counted

local function collect()
  collectgarbage("restart")
  collectgarbage("incremental")
  collectgarbage()
  collectgarbage()
  context.dispatch() -- callbacks of what the collector has ended
  collectgarbage()
end

function leaks.before()
  collect()
  counted = context.stats()
end

local function find_left()
  local left = {}
  for name, count in pairs(context.stats()) do
    if count > counted[name] then -- fewer: a thread of luv has let go of what an earlier test had there
      left[#left + 1] = ("%s: %d before, %d after"):format(name, counted[name], count)
    end
  end
  table.sort(left)
  return left
end

function leaks.after()
  local left
  -- The thread that has just ended a context may not have let go of it yet.
  local nothing_left = busy.settles(function()
    collect()
    left = find_left()
    return #left == 0
  end)
  if not nothing_left then
    error("the test leaves something behind: " .. table.concat(left, "; "), 0)
  end
end

---Whether there are `number` more of `name` than before the test, in the end: see after().
function leaks.settles(name, number)
  return busy.settles(function() return leaks.more(name) == number end)
end

---How many more of `name` there are than before the test.
function leaks.more(name)
  return context.stats()[name] - counted[name]
end

return leaks
