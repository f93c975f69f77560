-- types.lua is what editors and readers believe: it has to have exactly the names that the module has.

local function read(path)
  local file <close> = assert(io.open(path))
  return file:read("a")
end

describe("types.lua", function()
  local context = require "lcontext"
  local source = read(assert(package.searchpath("lcontext.types", package.path)))
  local ctx <const> = context.with_cancel(context.background())

  -- The names that the source gives to a class: functions, fields and assignments.
  local function declared(class)
    local names = {}
    for name in source:gmatch("\nfunction " .. class .. "[.:]([%w_]+)") do
      names[name] = true
    end
    for name in source:gmatch("\n" .. class .. "%.([%w_]+) =") do
      names[name] = true
    end
    return names
  end

  it("declares every name of the module, and no other", function()
    local names = declared("M")
    for name in source:match("%-%-%-@class lcontext\n.-\nlocal M"):gmatch("%-%-%-@field ([%w_]+) [^\n]*") do
      names[name] = true
    end
    local actual = {}
    for name in pairs(context) do
      actual[name] = true
    end
    assert.are.same(actual, names)
  end)

  it("declares only methods that contexts, Dones and errors have", function()
    for class, object in pairs { Context = ctx, Done = ctx:done(), Error = context.Canceled } do
      for name in pairs(declared(class)) do
        assert.is_function(object[name], class .. ":" .. name)
      end
    end
  end)

  it("is a meta file: everything in it is documented", function()
    for name in source:gmatch("\n\nfunction ([%w_.:]+)") do
      error("without annotations: " .. name)
    end
  end)
end)
