-- A hostile script: fifteen ways to go on for ever. It returns them, by name; each one alone must be stopped.
--
-- With the name of one as its argument the script tries it at once:
--
--   lua5.4 examples/sandbox.lua 0.5 examples/escape.lua "a metamethod"

local function loop()
  while true do end
end

local function resist() -- starts again whenever it is stopped
  while true do
    pcall(loop)
  end
end

local made_before = coroutine.create(resist)

local attempts = {
  { "a loop", loop },
  { "pcall, again and again", resist },
  { "an xpcall handler that loops", function() xpcall(loop, loop) resist() end },
  { "an xpcall handler that fails", function() while true do xpcall(loop, error) end end },
  { "a handler in a coroutine", function() while true do xpcall(loop, coroutine.wrap(resist)) end end },
  { "a metamethod", function() return setmetatable({}, { __index = resist }).x end },
  { "an iterator", function() for _ in resist do end end },
  { "a comparator of sort", function() table.sort({ 3, 2, 1 }, resist) end },
  { "a callback of gsub", function() return ("x"):gsub(".", resist) end },
  { "a __tostring", function() string.format("%s", setmetatable({}, { __tostring = resist })) end },
  { "a __close that never ends", function()
    local _ <close> = setmetatable({}, { __close = resist })
    loop()
  end },
  { "coroutines, five deep", function()
    local f = resist
    for _ = 1, 5 do
      local inner = f
      f = coroutine.wrap(function() while true do pcall(inner) end end)
    end
    f()
  end },
  { "a coroutine resumed from a __close", function()
    local co = coroutine.create(resist)
    local _ <close> = setmetatable({}, { __close = function() while true do coroutine.resume(co) end end })
    loop()
  end },
  { "a __close in a coroutine", function()
    local f = coroutine.wrap(function()
      local _ <close> = setmetatable({}, { __close = resist })
      loop()
    end)
    f()
  end },
  { "a coroutine made before", function()
    while true do
      pcall(coroutine.resume, made_before)
    end
  end },
  { "a new coroutine for each stop", function()
    while true do
      coroutine.resume(coroutine.create(resist))
    end
  end },
  { "deep recursion", function()
    local function deep(n) return 1 + deep(n + 1) end
    while true do pcall(deep, 1) end
  end },
}

for _, attempt in ipairs(attempts) do
  if attempt[1] == ... then
    attempt[2]()
  end
end
return attempts
