local context = require "lcontext"
local loop = require "lcontext.loop"
local child_process = require "spec.support.child"
local descriptors = require "spec.support.descriptors"
local leaks = require "spec.support.leaks"

local background = context.background()
local slow = os.getenv("LCONTEXT_SLOW") and 20 or 1

-- Ends a test that would hang, in a process of its own.
local function in_child(script)
  local output, status = child_process.run([[
    local context = require "lcontext"
    local loop = require "lcontext.loop"
    local background = context.background()
  ]] .. script)
  assert.not_equal(124, status, "it hangs: " .. output)
  assert.equal(0, status, output)
  return output
end

describe("loop.run", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("runs f with its arguments", function()
    local got
    loop.run(function(...) got = table.pack(...) end, 1, nil, "three", nil)
    assert.equal(4, got.n)
    assert.same({ 1, nil, "three" }, { got[1], got[2], got[3] })
  end)

  it("runs nothing at once", function()
    loop.run()
    loop.run()
  end)

  it("runs spawned tasks, in order, until none is left", function()
    local order = {}
    for i = 1, 3 do
      loop.spawn(function(a, b)
        order[#order + 1] = a .. b
        loop.spawn(function() order[#order + 1] = "child " .. i end)
      end, "task ", i)
    end
    assert.same({}, order)
    loop.run()
    assert.same({ "task 1", "task 2", "task 3", "child 1", "child 2", "child 3" }, order)
  end)

  it("gives a task to who spawns one", function()
    assert.is_not_nil(loop.spawn(function() end))
    loop.run()
    assert.error(function() loop.spawn(5) end)
    assert.error(function() loop.spawn() end)
    loop.run()
  end)

  it("raises when it is running", function()
    local ok, message
    loop.run(function()
      ok, message = pcall(loop.run)
    end)
    assert.is_false(ok)
    assert.matches("running", message)
    loop.run(function()
      local co = coroutine.create(function() return loop.run() end)
      ok = coroutine.resume(co)
    end)
    assert.is_false(ok)
    loop.run(function() ok = true end)
    assert.is_true(ok)
  end)

  it("is over with its last task", function()
    local start = context.now()
    local far <close> = context.with_timeout(background, 1000)
    loop.run(function() far:done():wait(0.01) end)
    assert.is_true(context.now() - start < 100)
  end)
end)

describe("a task", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("waits for a Done while others run", function()
    local ctx, cancel = context.with_cancel(background)
    local order = {}
    loop.spawn(function()
      order[#order + 1] = "waits"
      local woken = ctx:done():wait()
      order[#order + 1] = woken
    end)
    loop.spawn(function()
      order[#order + 1] = "cancels"
      cancel()
      order[#order + 1] = "cancelled"
    end)
    loop.run()
    assert.same({ "waits", "cancels", "cancelled", true }, order)
  end)

  it("waits for a deadline and with a time limit", function()
    local waited, limited, chosen, number
    loop.run(function()
      local ctx = context.with_timeout(background, 0.01)
      local live = background:with_cancel()
      limited = live:done():wait(0.005)
      waited = ctx:done():wait(10)
      chosen = context.select(live:done(), ctx:done(), 5) == ctx:done()
      number = context.select(live:done(), nil, 0.005)
    end)
    assert.is_true(waited)
    assert.is_false(limited)
    assert.is_true(chosen)
    assert.equal(0.005, number)
    assert.equal(0, leaks.more("waiters"))
  end)

  it("sleeps, sooner ones wake first", function()
    -- Again with longer sleeps when they have not begun at about the same time.
    local order, first, last
    local step = 0.005
    repeat
      step = 2 * step
      order = {}
      for i = 3, 1, -1 do
        loop.spawn(function()
          first = i == 3 and context.now() or first
          assert(loop.sleep(i * step) == true)
          order[#order + 1] = i
        end)
      end
      loop.spawn(function() last = context.now() end)
      loop.run()
    until last - first < step or step > 60
    assert.same({ 1, 2, 3 }, order)
  end)

  it("sleeps until its context ends", function()
    local results
    loop.run(function()
      local ctx, cancel = context.with_timeout(background, 100)
      loop.spawn(function()
        loop.sleep(0.005)
        cancel()
      end)
      results = { loop.sleep(50, ctx) }
    end)
    assert.same({ nil, context.Canceled }, results)
    loop.run(function()
      results = table.pack(loop.sleep(50, (context.with_timeout(background, 0.01))))
    end)
    assert.is_nil(results[1])
    assert.equal(context.DeadlineExceeded, results[2])
    loop.run(function()
      results = table.pack(loop.sleep(0.005, (context.with_timeout(background, 50))))
    end)
    assert.is_true(results[1])
    loop.run(function()
      results = table.pack(loop.sleep(50, (context.with_timeout(background, 0))))
    end)
    assert.is_nil(results[1])
    assert.equal(context.DeadlineExceeded, results[2])
  end)

  it("sleeps with a context that never ends, for ever, and for no time", function()
    local results
    loop.run(function()
      assert(loop.sleep(0) == true)
      assert(loop.sleep(-1) == true)
      assert(loop.sleep(-math.huge) == true)
      assert(loop.sleep(0.001, background) == true)
      assert(not pcall(loop.sleep, 0 / 0))
      assert(not pcall(loop.sleep, "soon"))
      local ctx = context.with_timeout(background, 0.01)
      results = table.pack(loop.sleep(math.huge, ctx))
    end)
    assert.is_nil(results[1])
    assert.equal(context.DeadlineExceeded, results[2])
  end)

  it("sleeps under nothing but a context", function()
    loop.run(function()
      for _, wrong in ipairs { 5, "x", true, io.stdout } do
        assert.error_matches(function() loop.sleep(0, wrong) end, "bad argument #2 to 'sleep'")
      end
    end)
  end)

  it("sleeps for ever if it is told to", function()
    local output = in_child [[
      loop.spawn(function()
        loop.sleep(math.huge)
        print("woken")
      end)
      loop.spawn(function() loop.sleep(0.02) print("over") os.exit(0, true) end)
      loop.run()
    ]]
    assert.equal("over\n", output)
  end)

  it("may yield a Done, several and seconds directly", function()
    local ctx = context.with_timeout(background, 0.01)
    local live = background:with_cancel()
    local order = {}
    loop.spawn(function()
      order[1] = coroutine.yield(live:done(), ctx:done()) == ctx:done()
    end)
    loop.spawn(function()
      local start = context.now()
      order[2] = coroutine.yield(0.01) == 0.01 and context.now() - start >= 0.0099
    end)
    loop.spawn(function() order[3] = coroutine.yield(live:done(), 0.01) == 0.01 end)
    loop.spawn(function() coroutine.yield() order[4] = true end)
    loop.run()
    assert.same({ true, true, true, true }, order)
    assert.equal(0, leaks.more("waiters"))
  end)

  it("may yield rubbish and goes on", function()
    local count = 0
    loop.run(function()
      for _, rubbish in ipairs { "text", {}, false, true, print, io.stdout, 0 / 0, background } do
        coroutine.yield(rubbish)
        count = count + 1
      end
      coroutine.yield(nil)
      coroutine.yield(nil, nil)
      count = count + 1
    end)
    assert.equal(9, count)
  end)

  it("waits in nested coroutines, which the loop resumes too", function()
    local ctx = context.with_timeout(background, 0.01)
    local inner_done
    loop.run(function()
      local co = coroutine.create(function()
        inner_done = ctx:done():wait()
      end)
      coroutine.resume(co)
      ctx:done():wait()
      for _ = 1, 5000 * slow do
        if inner_done then
          break
        end
        loop.sleep(0.001)
      end
    end)
    assert.is_true(inner_done)
  end)

  it("may be resumed too early by somebody else", function()
    local woken = 0
    loop.run(function()
      local ctx, cancel = context.with_cancel(background)
      local thread
      loop.spawn(function()
        thread = coroutine.running()
        assert(ctx:done():wait() == true)
        woken = woken + 1
      end)
      coroutine.yield()
      for _ = 1, 3 do
        local ok, done = coroutine.resume(thread)
        assert(ok and done == ctx:done())
      end
      assert(coroutine.status(thread) == "suspended")
      cancel()
    end)
    assert.equal(1, woken)
  end)

  it("that is closed while it waits leaves no waiter and does not hold the loop", function()
    local output = in_child [[
      local ctx = background:with_cancel()
      loop.run(function()
        local thread
        loop.spawn(function()
          thread = coroutine.running()
          ctx:done():wait(1000)
          print("not reached")
        end)
        coroutine.yield()
        assert(context.stats().waiters == 1)
        assert(coroutine.close(thread))
        assert(context.stats().waiters == 0)
        assert(context.stats().timers == 0)
      end)
      print("over")
    ]]
    assert.equal("over\n", output)
  end)

  it("is resumed once, however its wait ends", function()
    local ctx, cancel = context.with_cancel(background)
    local resumed = { 0, 0, 0, 0 }
    local threads = {}
    -- f waits so long that its time is not up before it can wait.
    local function waiter(i, f)
      local seconds = 0.002
      repeat
        resumed[i] = 0
        threads[i] = coroutine.create(function()
          f(seconds)
          resumed[i] = resumed[i] + 1
          coroutine.yield()
          resumed[i] = resumed[i] + 1
        end)
        assert(coroutine.resume(threads[i]))
        seconds = 2 * seconds
      until resumed[i] == 0 or seconds > 60
    end
    loop.run(function()
      waiter(1, function() ctx:done():wait() end)
      waiter(2, function(seconds) ctx:done():wait(seconds) end)
      waiter(3, function() ctx:done():wait() end)
      waiter(4, function(seconds)
        pcall(function()
          context.select(ctx:done(), seconds)
          error("x")
        end)
      end)
      assert(coroutine.close(threads[3]))
      for _ = 1, 1000 * slow do
        if resumed[2] + resumed[4] == 4 then
          break
        end
        loop.sleep(0.005)
      end
      cancel()
    end)
    -- A bare yield only lets others go first: the second count of each is that of its one wake-up.
    loop.run(loop.sleep, 0.002)
    assert.same({ 2, 2, 0, 2 }, resumed)
    assert.equal(0, leaks.more("waiters"))
    assert.is_true(leaks.settles("timers", 0))
  end)

  it("that is closed after it was woken, before its turn, is not resumed", function()
    local log, threads = {}, {}
    loop.run(function()
      local ctx, cancel = context.with_cancel(background)
      for i = 1, 2 do
        loop.spawn(function()
          threads[i] = coroutine.running()
          ctx:done():wait()
          log[#log + 1] = i
          coroutine.close(threads[3 - i])
        end)
      end
      coroutine.yield()
      cancel()
    end)
    assert.same({ 1 }, log)
  end)

  it("that is not spawned goes on when the last task has woken it", function()
    local ctx, cancel = context.with_cancel(background)
    local woken
    loop.run(function()
      coroutine.wrap(function() woken = ctx:done():wait() end)()
      cancel()
    end)
    assert.is_true(woken)
  end)

  it("waits in a __close handler and in a finalizer", function()
    local closed, collected
    loop.run(function()
      do
        local _ <close> = setmetatable({}, { __close = function()
          closed = background:with_timeout(0.002):done():wait()
        end })
      end
      setmetatable({}, { __gc = function() collected = background:with_timeout(0.002):done():wait() end })
      collectgarbage()
    end)
    assert.is_true(closed)
    assert.is_true(collected)
  end)

  it("closes a context at scope exit, also when it fails", function()
    local seen
    assert.error_matches(function()
      loop.run(function()
        local ctx <close> = context.with_timeout(background, 1000)
        seen = ctx
        error("failed")
      end)
    end, "failed")
    assert.equal(context.Canceled, seen:err())
  end)

  it("runs in a coroutine that is not the main one", function()
    local value, over
    local ctx, cancel = context.with_cancel(background)
    local co = coroutine.wrap(function()
      assert(coroutine.isyieldable())
      ctx:done():wait()
      over = true
    end)
    loop.run(function()
      value = co()
      cancel()
      while not over do
        loop.sleep(0.001)
      end
    end)
    assert.is_not_nil(value)
  end)
end)

describe("a loop that is stopped", function()
  before_each(leaks.before)
  after_each(leaks.after)

  local settings
  local create = coroutine.create

  setup(function()
    settings = context.interrupt {}
  end)

  after_each(function()
    context.interrupt(settings)
    coroutine.create = create -- luacheck: ignore 122
  end)

  local function script(cancel)
    for _ = 1, 3 do
      loop.spawn(coroutine.yield)
    end
    loop.spawn(function()
      loop.spawn(coroutine.yield, 0.0001)
      cancel()
    end)
    loop.sleep(0.0001)
    context.select(context.with_timeout(background, 0.0001):done(), 1)
  end

  -- In count mode the hook looks at every n-th instruction: with each n it strikes at another one.
  local function strike_everywhere()
    for n = 1, 1000, slow do
      context.interrupt { mode = "count", count = n, grace = 60 }
      local ctx, cancel = context.with_cancel(background)
      ctx:pcall(loop.run, script, cancel)
      local ran = false
      local limit <close> = context.with_timeout(background, 10 * slow)
      assert.is_true(limit:pcall(loop.run, function() ran = true end), n)
      assert.is_true(ran, n)
    end
  end

  it("at whatever instruction, can be run again", strike_everywhere)

  it("can be run again also where a tool has replaced coroutine.create", function()
    coroutine.create = function(f) -- luacheck: ignore 122
      local thread = create(f)
      return thread
    end
    strike_everywhere()
  end)

  it("ends, whatever its tasks do", function()
    local never <close> = context.with_cancel(background)
    local bodies = {
      function() while true do coroutine.yield() end end,
      function() while true do loop.sleep(0.0001) end end,
      function() while true do loop.spawn(function() end) coroutine.yield() end end,
      function() while true do pcall(loop.sleep, 0) end end,
      function() never:done():wait() end,
    }
    for _, mode in ipairs { "signal", "count" } do
      context.interrupt { mode = mode, grace = 3600 }
      for i, body in ipairs(bodies) do
        local thread
        local over = false
        local ctx <close> = context.with_timeout(background, 0.01)
        local ok, err = ctx:pcall(loop.run, function()
          thread = coroutine.running()
          if not over then -- it may begin in the next run only
            body()
          end
        end)
        over = true
        assert.is_false(ok, i)
        assert.equal(context.DeadlineExceeded, err)
        if thread then
          coroutine.close(thread)
        end
        loop.run()
      end
    end
  end)
end)

describe("an error in a task", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("is raised by run with the task's traceback", function()
    local function culprit() error("the problem") end
    local ok, message = pcall(loop.run, function()
      loop.sleep(0.001)
      culprit()
    end)
    assert.is_false(ok)
    assert.matches("loop_spec.lua:%d+: the problem", message)
    assert.matches("traceback", message)
    assert.matches("culprit", message)
  end)

  it("that is an object is raised unchanged", function()
    for _, object in ipairs { {}, context.Canceled, print, true, false, setmetatable({}, { __tostring = error }),
      setmetatable({}, { __tostring = function() return {} end }) } do
      local ok, err = pcall(loop.run, function() error(object) end)
      assert.is_false(ok)
      assert.is_true(rawequal(object, err))
    end
    assert.same({ false, nil }, { pcall(loop.run, function() error(nil) end) })
    assert.same({ false, nil }, { pcall(loop.run, function() error() end) })
  end)

  it("lets the other tasks go on with the next run", function()
    local order = {}
    local ctx, cancel = context.with_cancel(background)
    loop.spawn(function() order[#order + 1] = 1 ctx:done():wait() order[#order + 1] = 4 end)
    loop.spawn(function() error("one") end)
    loop.spawn(function() order[#order + 1] = 2 end)
    loop.spawn(function() error("two") end)
    assert.error_matches(function() loop.run() end, "one")
    assert.error_matches(function() loop.run() end, "two")
    assert.same({ 1, 2 }, order)
    loop.run(function() order[#order + 1] = 3 cancel() end)
    assert.same({ 1, 2, 3, 4 }, order)
  end)

  it("in the midst of others that wait loses none of them", function()
    local ctx, cancel = context.with_cancel(background)
    local woken, failures = 0, 0
    for i = 1, 20 do
      loop.spawn(function()
        ctx:done():wait()
        woken = woken + 1
        if i % 5 == 0 then
          error("problem " .. i, 0)
        end
      end)
    end
    loop.spawn(function()
      loop.sleep(0.002)
      cancel()
    end)
    while not pcall(loop.run) do
      failures = failures + 1
    end
    assert.equal(4, failures)
    assert.equal(20, woken)
  end)

  it("loses no wake-up of another task that comes before the next run", function()
    local output = in_child [[
      local ctx, cancel = context.with_cancel(background)
      loop.spawn(function() ctx:done():wait() print("woken") end)
      loop.spawn(function() error("x") end)
      assert(not pcall(loop.run))
      cancel()
      loop.run()
      print("over")
    ]]
    assert.equal("woken\nover\n", output)
  end)

  it("loses no wake-up that a blocking wait between two runs has seen", function()
    local output = in_child [[
      loop.spawn(function() loop.sleep(0.01) print("woken") end)
      loop.spawn(function() error("x") end)
      assert(not pcall(loop.run))
      background:with_timeout(0.03):done():wait()
      context.dispatch()
      loop.run()
      print("over")
    ]]
    assert.equal("woken\nover\n", output)
  end)

  it("leaves callbacks to dispatch points again", function()
    assert.error(function() loop.run(function() error("x") end) end)
    local ctx, cancel = context.with_cancel(background)
    local ran = false
    context.after_func(ctx, function() ran = true end)
    cancel()
    assert.is_true(ran)
  end)
end)

describe("a callback in the loop", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("is a task: it may wait", function()
    local order = {}
    loop.run(function()
      local ctx, cancel = context.with_cancel(background)
      local second, second_over = context.with_cancel(background)
      local both, both_over = context.with_cancel(background)
      context.after_func(ctx, function()
        order[#order + 1] = coroutine.isyieldable() and "begin" or "not a task"
        second:done():wait()
        order[#order + 1] = "end"
        both_over()
      end)
      context.after_func(ctx, function()
        order[#order + 1] = "second"
        second_over()
      end)
      cancel()
      order[#order + 1] = "cancelled"
      both:done():wait()
      order[#order + 1] = "over"
    end)
    assert.same({ "cancelled", "begin", "second", "end", "over" }, order)
  end)

  it("runs although the task that has cancelled was the last one", function()
    local ran = false
    loop.run(function()
      local ctx, cancel = context.with_cancel(background)
      context.after_func(ctx, function() ran = true end)
      cancel()
    end)
    assert.is_true(ran)
  end)

  it("runs before run is over when the last task leaves its scope", function()
    local ran = false
    loop.run(function()
      local ctx <close> = context.with_cancel(background)
      ctx:after_func(function() loop.sleep(0.001) ran = true end)
    end)
    assert.is_true(ran)
  end)

  it("runs once for a deadline", function()
    local ran = 0
    loop.run(function()
      context.after_func((context.with_timeout(background, 0.005)), function() ran = ran + 1 end)
      for _ = 1, 1000 * slow do
        loop.sleep(0.01)
        if ran > 0 then
          break
        end
      end
      loop.sleep(0.01)
    end)
    assert.equal(1, ran)
  end)

  it("can be stopped as ever", function()
    local ran = false
    loop.run(function()
      local ctx, cancel = context.with_cancel(background)
      local stop = context.after_func(ctx, function() ran = true end)
      cancel()
      assert(stop())
      loop.sleep(0.001)
    end)
    assert.is_false(ran)
  end)

  it("is counted by a dispatch in a task", function()
    local count
    loop.run(function()
      local ctx, cancel = context.with_cancel(background)
      context.after_func(ctx, function() end)
      context.after_func(ctx, function() end)
      cancel()
      count = context.dispatch()
    end)
    assert.equal(2, count)
  end)
end)

describe("many tasks", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("10,000 on 10,000 contexts", function()
    local woken = 0
    for i = 1, 10000 do
      loop.spawn(function()
        local ctx <close> = context.with_timeout(background, 0.001 + (i % 50) / 2000)
        if ctx:done():wait() then
          woken = woken + 1
        end
      end)
    end
    loop.run()
    assert.equal(10000, woken)
  end)

  it("10,000 on one context: one cancel wakes all, in order", function()
    local ctx, cancel = context.with_cancel(background)
    local order = {}
    for i = 1, 10000 do
      loop.spawn(function()
        ctx:done():wait()
        order[#order + 1] = i
      end)
    end
    loop.spawn(function()
      assert(context.stats().waiters >= 10000)
      cancel()
    end)
    loop.run()
    assert.equal(10000, #order)
    for i = 1, 10000 do
      assert(order[i] == i)
    end
    assert.equal(0, leaks.more("waiters"))
  end)

  it("10,000 on 10,000 contexts: one cancel wakes all, without descriptors of their own", function()
    local parent, cancel = context.with_cancel(background)
    local open = descriptors()
    local woken, most = 0, 0
    for _ = 1, 10000 do
      loop.spawn(function()
        local ctx <close> = context.with_cancel(parent)
        if ctx:done():wait() then
          woken = woken + 1
        end
      end)
    end
    loop.spawn(function()
      most = descriptors()
      assert(context.stats().waiters >= 10000)
      cancel()
    end)
    loop.run()
    assert.equal(10000, woken)
    assert.is_true(most <= open)
    assert.equal(0, leaks.more("waiters"))
  end)

  it("on many deadlines do not keep the processor busy", function()
    local woken = 0
    for _ = 1, 1000 do
      loop.spawn(function()
        background:with_timeout(0.2):done():wait()
        woken = woken + 1
      end)
    end
    local start = os.clock()
    loop.run()
    assert.equal(1000, woken)
    assert.is_true(os.clock() - start < 0.1 * slow)
  end)

  it("1,000 turns of two tasks that wake each other", function()
    local count = 0
    local function player()
      local ctx, cancel = context.with_cancel(background)
      return { ctx = ctx, cancel = cancel }
    end
    local ping, pong = player(), player()
    loop.spawn(function()
      for _ = 1, 1000 do
        ping.ctx:done():wait()
        ping = player()
        count = count + 1
        pong.cancel()
      end
    end)
    loop.spawn(function()
      for _ = 1, 1000 do
        local mine = pong
        ping.cancel()
        mine.ctx:done():wait()
        pong = player()
        count = count + 1
      end
    end)
    loop.run()
    assert.equal(2000, count)
  end)
end)
