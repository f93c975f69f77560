-- A sandbox: runs a file of untrusted Lua, for so many seconds at most.
--
--   lua5.4 examples/sandbox.lua 0.5 FILE [ARGUMENT...]
--
-- The environment decides what the script can reach, ctx:pcall for how long.
-- Prints what the file returns (exit status 0), its error (1), or where it was stuck when the time was up (2).
-- What this does not limit: memory (run the process under `ulimit -v`); one long call of a C function, as string.find
-- with a pathological pattern. Where that matters, leave the pattern functions out, or have the process killed in the
-- end (`timeout`).

local context = require "lcontext" -- first, so that the coroutine functions copied below are those it knows

-- Only what is listed here can be reached: no io, os.execute, require, debug, no load (bytecode can crash Lua).
-- setmetatable is wrapped: a __gc finalizer would run outside the time limit.
local safe = {
  _G = "assert error getmetatable ipairs next pairs pcall print rawget rawlen select tonumber tostring type xpcall",
  coroutine = "close create isyieldable resume running status wrap yield",
  math = "abs ceil cos exp floor fmod huge log max maxinteger min mininteger modf pi random sin sqrt tointeger type",
  os = "clock date difftime time",
  string = "byte char find format gmatch gsub len lower match rep reverse sub upper",
  table = "concat insert move pack remove sort unpack",
  utf8 = "char charpattern codepoint codes len offset",
}

local function setmetatable_without_gc(object, metatable)
  if type(metatable) == "table" and rawget(metatable, "__gc") ~= nil then
    error("no __gc in the sandbox", 2)
  end
  return setmetatable(object, metatable)
end

local function bounded_rep(text, times, separator)
  if (#tostring(text) + #tostring(separator or "")) * (tonumber(times) or 0) > 1e6 then
    error("string.rep: more than a megabyte", 2)
  end
  return string.rep(text, times, separator)
end

-- A new environment each time, of new tables: what one script changes, no other one sees.
local function environment()
  local env = {}
  for library, names in pairs(safe) do
    local copy = library == "_G" and env or {}
    for name in names:gmatch("%S+") do
      copy[name] = _G[library][name]
    end
    env[library] = copy
  end
  env.setmetatable, env.string.rep = setmetatable_without_gc, bounded_rep
  -- ("x"):rep() finds its method by the metatable that all strings share: it leads to our copy, and is hidden.
  local strings = getmetatable("")
  strings.__index, strings.__metatable = env.string, false
  return env
end

local seconds, path = tonumber(arg[1]), assert(arg[2], "usage: sandbox.lua SECONDS FILE")
local file <close> = assert(io.open(path))
local script, problem = load(file:read("a"), "@" .. path, "t", environment()) -- "t": text, no bytecode
local ctx = context.with_timeout(context.background(), seconds)

-- tostring() is inside the call too: it may run the script's __tostring.
local ok, result, trace = ctx:pcall(function()
  return tostring((script or error(problem, 0))(table.unpack(arg, 3)))
end)
if not ok and not trace and type(result) ~= "string" then
  ok, result, trace = false, select(2, ctx:pcall(tostring, result))
end
print(result)
if trace then print(trace) end
os.exit(trace and 2 or ok and 0 or 1)
