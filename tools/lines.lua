-- lines.lua: notes which lines of the library's Lua files run, for coverage.lua. To be run first in a Lua state
-- (LUA_INIT); appends to the file LINES_REACHED when that state ends.

-- luacheck: globals coroutine.create coroutine.wrap os.exit LINES_AT_END
local reached = {}

local function note(_, line)
  local source = debug.getinfo(2, "S").source
  if source:find("/lua/lcontext/", 1, true) then
    reached[source:match "lua/lcontext/.*" .. ":" .. line] = true
  end
end

-- Hooks belong to one coroutine.
local create = coroutine.create
function coroutine.create(f)
  local thread = create(f)
  debug.sethook(thread, note, "l")
  return thread
end

function coroutine.wrap(f)
  local thread = coroutine.create(f)
  local function results(ok, ...)
    if not ok then
      error(..., 0)
    end
    return ...
  end
  return function(...)
    return results(coroutine.resume(thread, ...))
  end
end

local function write()
  local file = assert(io.open(os.getenv "LINES_REACHED", "a"))
  for line in pairs(reached) do
    file:write(line, "\n")
  end
  file:close()
end

-- A state that ends collects what is left.
LINES_AT_END = setmetatable({}, { __gc = write })
local exit = os.exit
function os.exit(...)
  write()
  exit(...)
end
debug.sethook(note, "l")
