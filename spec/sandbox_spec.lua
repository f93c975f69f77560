-- The sandbox stops what is hostile, and runs what is not. Each script runs in a process of its own.

local busy = require "spec.support.busy"

local lua = os.getenv("LUA") or "lua5.4"
local root = debug.getinfo(1, "S").source:match("^@(.*)spec/") or ""
local examples = root .. "examples/"

local function run(command)
  local pipe = assert(io.popen(("timeout 120 %s %s 2>&1"):format(lua, command)))
  local output = pipe:read("a")
  local _, _, status = pipe:close()
  return output, status
end

describe("sandbox.lua", function()
  local path

  before_each(function()
    path = os.tmpname()
  end)

  after_each(function()
    os.remove(path)
  end)

  local function sandbox(source, seconds)
    local file = assert(io.open(path, "wb"))
    file:write(source)
    file:close()
    return run(("'%ssandbox.lua' %g '%s'"):format(examples, seconds or 60, path))
  end

  it("prints the result", function()
    local output, status = sandbox("return 6 * 7")
    assert.equal("42\n", output)
    assert.equal(0, status)
    assert.equal(0, select(2, sandbox("return ('x'):rep(3), coroutine.wrap(function() return 1 end)()")))
  end)

  it("prints the script's error", function()
    local output, status = sandbox("\nerror('mine')")
    assert.equal(path .. ":2: mine\n", output)
    assert.equal(1, status)
    output, status = sandbox("x = = 1")
    assert.equal(path .. ":1: unexpected symbol near '='\n", output)
    assert.equal(1, status)
    assert.equal(1, select(2, sandbox("error({})")))
    output, status = sandbox("error(setmetatable({}, { __tostring = function() return 'object' end }))")
    assert.equal("object\n", output)
    assert.equal(1, status)
  end)

  it("prints where the script was stuck", function()
    for _, source in ipairs {
      "\nwhile true do end",
      "return setmetatable({}, { __tostring =\nfunction() while true do end end })",
      "error(setmetatable({}, { __tostring =\nfunction() while true do end end }))",
    } do
      -- The time may be over before the script is there.
      busy.in_time(function(seconds)
        local output, status = sandbox(source, 3 * seconds)
        assert.equal("context deadline exceeded", output:match("^[^\n]*"))
        return status == 2 and output:find(path .. ":2: in", 1, true)
      end)
    end
  end)

  it("lets nothing dangerous be reached", function()
    for _, name in ipairs {
      "io", "debug", "package", "require", "load", "loadfile", "loadstring", "dofile", "collectgarbage", "os.execute",
      "os.exit", "os.remove", "os.getenv", "os.tmpname", "string.dump", "('x').dump", "_G.io", "context", "arg",
    } do
      local output, status = sandbox("return " .. name)
      assert.equal("nil\n", output, name)
      assert.equal(0, status)
    end
    assert.equal("false\n", (sandbox("return getmetatable('')")))
    assert.equal(1, select(2, sandbox("return ('x'):rep(1e9)")))
    assert.equal(1, select(2, sandbox("return ('x'):rep(10, ('y'):rep(500000))")))
    assert.equal(1, select(2, sandbox("return ('x'):rep('1000000000')")))
    assert.equal(1, select(2, sandbox("setmetatable({}, { __gc = function() while true do end end })")))
    assert.equal(1, select(2, sandbox(string.dump(function() return 1 end))))
  end)

  it("keeps what a script changes from the host", function()
    local output, status = sandbox("string.format, string.rep, print, tostring = error, error, error, error return 1")
    assert.equal("1\n", output)
    assert.equal(0, status)
  end)

  it("stops each attempt of escape.lua", function()
    local attempts = dofile(examples .. "escape.lua")
    assert.truthy(#attempts >= 15)
    for _, attempt in ipairs(attempts) do
      busy.in_time(function(seconds)
        local output, status = run(('"%ssandbox.lua" %g "%sescape.lua" "%s"')
          :format(examples, 2 * seconds, examples, attempt[1]))
        assert.equal("context deadline exceeded", output:match("^[^\n]*"), attempt[1] .. ": " .. output)
        return status == 2 and output:find("escape.lua:%d+: in")
      end)
    end
  end)
end)

describe("8_sandbox.lua", function()
  it("tells of each attempt when and where it was stopped", function()
    busy.again(function()
      local output, status = run(('"%s8_sandbox.lua"'):format(examples))
      assert.equal(0, status, output)
      local attempts = dofile(examples .. "escape.lua")
      local lines = {}
      for line in output:gmatch("[^\n]+") do
        lines[#lines + 1] = line
      end
      assert.equal(#attempts + 1, #lines)
      for i, attempt in ipairs(attempts) do
        local name, seconds = lines[i]:match("^(.-) +stopped after ([%d.]+) s, in line %d+, from line %d+$")
        assert.equal(attempt[1], name)
        assert.truthy(tonumber(seconds) >= 0.05 and tonumber(seconds) < 5, lines[i])
      end
      assert.equal("and we are still here", lines[#lines])
    end)
  end)
end)
