-- examples/service as a whole: Redis, two HTTP servers and the service as processes, asked by curl. Times have wide
-- bounds: a busy machine is late, never early.

local busy = require "spec.support.busy"

local lua = os.getenv("LUA") or "lua5.4"
local root = debug.getinfo(1, "S").source:match("^@(.*)spec/") or ""

describe("the service", function()
  local sections, output

  local function exercise()
    local pipe = assert(io.popen(('%s "%sexamples/service/exercise.lua" 2>&1'):format(lua, root)))
    output = pipe:read("a")
    local _, _, status = pipe:close()
    assert.equal(0, status, output)
    local found = {}
    for block in (output .. "\n"):gmatch("(.-)\n\n") do
      local title, seconds, text = block:match("^== (.-) %(([%d.]+) s%)\n(.*)$")
      found[title or ""] = { seconds = tonumber(seconds), text = text }
    end
    return found
  end

  -- The service has deadlines of its own, which a machine that stands still for a moment misses.
  local function attempt(check)
    busy.again(function()
      sections = sections or exercise()
      local ok, err = pcall(check)
      if not ok then
        sections = nil
        error(err, 0)
      end
    end)
  end

  local function section(title)
    return assert(sections[title], ("no %q in: %s"):format(title, output))
  end

  it("answers with what all three have said", function()
    attempt(function()
      assert.equal("request r-1\nprofile: alice\nprices: prices of r-1\nsearch: search of r-1",
        section("All is well").text)
    end)
  end)

  it("answers at the deadline with what has come, and names what has not", function()
    attempt(function()
      local hangs = section("Search hangs")
      assert.equal("request r-2\nprofile: alice\nprices: prices of r-2\nsearch: missing, context deadline exceeded",
        hangs.text)
      assert.is_true(hangs.seconds >= 0.5 and hangs.seconds < 5, hangs.seconds)
    end)
  end)

  it("has one deadline, however many are late", function()
    attempt(function()
      local hangs = section("Redis hangs, too")
      assert.equal("request r-3\nprofile: missing, context deadline exceeded\nprices: prices of r-3\n" ..
        "search: missing, context deadline exceeded", hangs.text)
      assert.is_true(hangs.seconds >= 0.5 and hangs.seconds < 5, hangs.seconds)
    end)
  end)

  it("gives up when the client hangs up", function()
    attempt(function()
      assert.equal("curl says 28\nsearch: waiting 0, answered 1, abandoned 3", section("The client hangs up").text)
    end)
  end)

  it("answers what is under way and stops when it gets SIGTERM", function()
    attempt(function()
      local stopped = section("SIGTERM while a request is under way")
      assert.matches("\nsearch: missing, the server is shutting down", stopped.text)
      assert.matches("\nthe service has stopped with status 0\n", output)
    end)
  end)
end)
