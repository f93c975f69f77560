-- The examples do what they say. Each runs in a process of its own, as a reader would run it. Where they print
-- times, the bounds are wide: a busy machine is late, never early. Where it decides what they print, they run again.

local busy = require "spec.support.busy"

local lua = os.getenv("LUA") or "lua5.4"
local root = debug.getinfo(1, "S").source:match("^@(.*)spec/") or ""
local examples = root .. "examples/"

local names = {
  "1_handler.lua",
  "2_children.lua",
  "3_values.lua",
  "4_custom.lua",
  "5_many_values.lua",
  "6_abandoned.lua",
  "7_deadline.lua",
  "8_sandbox.lua",
}

-- Runs a program; returns what it has printed, as a list of lines, and its exit status.
local function run(path)
  local pipe = assert(io.popen(('%s "%s" 2>&1'):format(lua, path)))
  local lines = {}
  for line in pipe:lines() do
    lines[#lines + 1] = line
  end
  local _, _, status = pipe:close()
  return lines, status
end

local function run_example(name)
  local lines, status = run(examples .. name)
  assert.equal(0, status, table.concat(lines, "\n"))
  return lines
end

-- The numbers in a line that has to match the pattern.
local function numbers(line, pattern)
  local found = table.pack(tostring(line):match("^" .. pattern .. "$"))
  assert.truthy(found[1], ("%q does not match %q"):format(tostring(line), pattern))
  for i, number in ipairs(found) do
    found[i] = tonumber(number)
  end
  return table.unpack(found)
end

local function assert_between(low, high, number)
  assert.truthy(low <= number and number <= high, ("%g is not in %g..%g"):format(number, low, high))
end

describe("the example", function()
  it("1_handler: the work wins, then the deadline", function()
    busy.again(function()
      local lines = run_example("1_handler.lua")
      assert_between(0.5, 1.5, numbers(lines[1], "work of 0%.5 s: done after ([%d.]+) s"))
      assert.equal("  err() is nil", lines[2])
      assert_between(0, 0.5, numbers(lines[3], "  ([%d.]+) s were left"))
      assert_between(1, 2.5, numbers(lines[4], "work of 2%.0 s: given up after ([%d.]+) s"))
      assert.equal("  err() is context deadline exceeded", lines[5])
      assert.equal("  which is context.DeadlineExceeded", lines[6])
      assert.equal(6, #lines)
    end)
  end)

  it("2_children: both tick, and both end when the parent does", function()
    busy.again(function()
      local lines = run_example("2_children.lua")
      local expected = {
        { 1.0, "alice   tick 1" },
        { 1.0, "bob     tick 1" },
        { 2.0, "alice   tick 2" },
        { 2.0, "bob     tick 2" },
        { 2.5, "parent  cancel" },
        { 2.5, "alice   told to stop: context canceled, because of closing time" },
        { 2.5, "bob     told to stop: context canceled, because of closing time" },
        { 2.5, "parent  both are gone" },
      }
      for i, line in ipairs(expected) do
        local time, what = tostring(lines[i]):match("^([%d.]+) s  (.*)$")
        assert.equal(line[2], what)
        assert_between(line[1], line[1] + 0.9, tonumber(time))
      end
      assert.equal(#expected, #lines)
    end)
  end)

  it("3_values: both workers read the value when they are told to stop", function()
    assert.same({
      "the context: context.Background.WithValue(request id, r-42).WithCancel",
      "its id, asked for by a string of that name: nil",
      "outer worker: request r-42, context canceled",
      "inner worker: request r-42, context canceled",
    }, run_example("3_values.lua"))
  end)

  it("4_custom: the wrapper is asked for values, and its child ends with what it wraps", function()
    local lines = run_example("4_custom.lua")
    local name = "Reporting%.WithDeadline%(%d+%-%d+%-%d+T[%d:.]+Z %[[%d.]+s%]%)%.WithValue%(role, admin%)"
    assert.truthy(tostring(lines[1]):match("^the child: " .. name .. "$"), lines[1])
    assert.same({
      "role of the child: admin",
      "  asked for user: alice",
      "user of the child: alice",
      "before the cancel, err() is nil",
      "after it, err() is context canceled, and the cause enough",
    }, table.move(lines, 2, #lines, 1, {}))
  end)

  it("5_many_values: prints four times for each number of values", function()
    local lines = run_example("5_many_values.lua")
    assert.equal("          a layer for each          one layer for all", lines[1])
    assert.equal("values    put in (ns)  read (ns)    put in (ns)  read (ns)", lines[2])
    for i, count in ipairs { 1, 10, 100, 1000 } do
      local row = table.pack(numbers(lines[i + 2], " *(%d+) +(%d+) +(%d+) +(%d+) +(%d+)"))
      assert.equal(count, row[1])
      for column = 2, 5 do
        assert_between(1, 1e8, row[column])
      end
    end
    assert.equal(6, #lines)
  end)

  it("6_abandoned: the collector ends the job, and nothing is left", function()
    local working = "contexts 2, live 2, timers 1, callbacks 1, file there"
    assert.same({
      "working: " .. working,
      "still owned: " .. working,
      "abandoned",
      "callback: the context ended (context canceled), the file is removed",
      "collected: contexts 0, live 0, timers 0, callbacks 0, file gone",
    }, run_example("6_abandoned.lua"))
  end)

  it("7_deadline: a timeout for each read adds up, a deadline does not", function()
    busy.again(function()
      local lines = run_example("7_deadline.lua")
      local naive = numbers(lines[1], "0%.3 s for each read: +10 lines, ([%d.]+) s, complete")
      local in_time = numbers(lines[2], "0%.3 s, by remaining%(%): +%d lines, ([%d.]+) s, timeout")
      local by_done = numbers(lines[3], "0%.3 s, by select on a Done: +%d lines, ([%d.]+) s, context deadline exceeded")
      assert_between(1.6, 4, naive)
      assert_between(0.29, 1.5, in_time)
      assert_between(0.3, 1.5, by_done)
      assert.equal(3, #lines)
    end)
  end)
end)

describe("the tour", function()
  local folder

  -- A copy of the tour, in a folder with a name that needs quoting, and with short programs for the examples.
  before_each(function()
    folder = os.tmpname()
    os.remove(folder)
    folder = folder .. " it's here"
    assert(os.execute(('mkdir "%s" && cp "%stour.lua" "%s"'):format(folder, examples, folder)))
  end)

  after_each(function()
    os.execute(('rm -r "%s"'):format(folder))
  end)

  local function write_examples(broken)
    for i, name in ipairs(names) do
      local file <close> = assert(io.open(folder .. "/" .. name, "w"))
      file:write("-- Title ", i, "\nprint('output ", i, "')\n", name == broken and "os.exit(3)\n" or "")
    end
  end

  it("runs the eight in order, each under its heading", function()
    write_examples()
    local expected = {}
    for i, name in ipairs(names) do
      expected[#expected + 1] = i > 1 and "" or nil
      table.move({ ("== Title %d (%s)"):format(i, name), "", "output " .. i }, 1, 3, #expected + 1, expected)
    end
    local lines, status = run(folder .. "/tour.lua")
    assert.same(expected, lines)
    assert.equal(0, status)
  end)

  it("fails when one fails, and runs the others", function()
    write_examples("3_values.lua")
    local lines, status = run(folder .. "/tour.lua")
    assert.equal(1, status)
    local output = table.concat(lines, "\n")
    assert.truthy(output:find("3_values.lua failed", 1, true))
    assert.truthy(output:find("output 7", 1, true))
  end)

  it("finds a title in each of the examples", function()
    for _, name in ipairs(names) do
      local file <close> = assert(io.open(examples .. name))
      assert.truthy(file:read("l"):match("^%-%- %u.*[.?]$"), name)
    end
  end)
end)
