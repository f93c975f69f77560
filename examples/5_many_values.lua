-- Many values: a layer for each, or one layer for all?
--
-- with_value() adds one value, in a layer of its own. with_values() adds a whole table of them in one layer. Both
-- read the same afterwards. This program times both ways, for more and more values: how long it takes to put one
-- in, and to read one, on average. The numbers are those of your machine, now.

local context = require "lcontext"

local function layers(names)
  local ctx = context.background()
  for i, name in ipairs(names) do
    ctx = ctx:with_value(name, i)
  end
  return ctx
end

local function one_layer(names)
  local values = {}
  for i, name in ipairs(names) do
    values[name] = i
  end
  return context.background():with_values(values)
end

-- Calls f(), which does `steps` things, for a twentieth of a second (a single call is too short to be measured),
-- and returns the nanoseconds of processor time that one of those things takes.
local function time(steps, f)
  collectgarbage()
  local start, calls = os.clock(), 0
  repeat
    f()
    calls = calls + 1
  until os.clock() - start > 0.05
  return (os.clock() - start) / (calls * steps) * 1e9
end

local function read_all(ctx, names)
  for i, name in ipairs(names) do
    assert(ctx:value(name) == i)
  end
end

print("          a layer for each          one layer for all")
print("values    put in (ns)  read (ns)    put in (ns)  read (ns)")
for _, count in ipairs { 1, 10, 100, 1000 } do
  local names = {}
  for i = 1, count do
    names[i] = "value " .. i
  end
  local row = { count }
  for _, make in ipairs { layers, one_layer } do
    local ctx = make(names)
    row[#row + 1] = time(count, function() make(names) end)
    row[#row + 1] = time(count, function() read_all(ctx, names) end)
  end
  print(("%6d    %11.0f  %9.0f    %11.0f  %9.0f"):format(table.unpack(row)))
end
