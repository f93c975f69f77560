local context = require "lcontext"
local busy = require "spec.support.busy"
local luv = require "lcontext.luv"
local uv = require "luv"
local child_process = require "spec.support.child"
local descriptors = require "spec.support.descriptors"
local leaks = require "spec.support.leaks"

local background = context.background()
local slow = os.getenv("LCONTEXT_SLOW") and 20 or 1

-- What would hang, or end the process, in a process of its own.
local function in_child(script, expected)
  local output, status = child_process.run([[
    local context = require "lcontext"
    local luv = require "lcontext.luv"
    local uv = require "luv"
    local background = context.background()
    local function after(ms, f)
      local timer = uv.new_timer()
      timer:start(ms, 0, function() timer:close() f() end)
      return timer
    end
  ]] .. script)
  assert.not_equal(124, status, "it hangs: " .. output)
  assert.equal(expected or 0, status, output)
  return output
end

-- Calls f once, from the loop, after so many milliseconds.
local function after(ms, f)
  local timer = uv.new_timer()
  timer:start(ms, 0, function()
    timer:close()
    f()
  end)
end

-- Runs each f as a coroutine, and the loop until it ends. luv would end the process for an error.
local function run(...)
  local failure
  local over = 0
  for _, f in ipairs { ... } do
    coroutine.wrap(function()
      xpcall(f, function(err) failure = failure or { err } end)
      over = over + 1
    end)()
  end
  uv.run()
  if failure then
    error(failure[1], 0)
  end
  assert.equal(select("#", ...), over)
end

-- Runs the loop until something has happened, for ten seconds at most.
local function run_until(happened)
  local timer, start = uv.new_timer(), uv.hrtime()
  timer:start(0, 1, function()
    if happened() or uv.hrtime() - start > 10e9 * slow then
      timer:close()
    end
  end)
  uv.run()
end

local function begin()
  leaks.before()
  assert.is_true(luv.attach())
end

local function finish()
  luv.detach()
  uv.run("nowait")
  leaks.after()
end

describe("attach to luv", function()
  before_each(leaks.before)
  after_each(finish)

  it("may be called again, and undone again", function()
    luv.detach()
    assert.is_true(luv.attach())
    assert.is_true(luv.attach())
    luv.detach()
    luv.detach()
    assert.is_true(luv.attach())
    local woken
    run(function() woken = background:with_timeout(0.005):done():wait() end)
    assert.is_true(woken)
  end)

  it("does not keep the loop alive", function()
    luv.attach()
    assert.is_false(uv.loop_alive())
    uv.run()
    luv.detach()
    assert.is_false(uv.loop_alive())
  end)

  it("leaves a coroutine that waits meanwhile for the next attach", function()
    luv.attach()
    local ctx, cancel = context.with_cancel(background)
    local order = {}
    coroutine.wrap(function() table.insert(order, ctx:done():wait()) end)()
    local limited = busy.waiting(function(seconds)
      order[1] = nil
      table.insert(order, context.select(ctx:done(), seconds) == seconds and "time")
    end)
    luv.detach()
    assert.is_false(uv.loop_alive())
    uv.run()
    for _ = 1, 1000 * slow do
      background:with_timeout(0.01):done():wait()
      context.dispatch()
      if leaks.more("waiters") == 1 then
        break -- the other one's time is up
      end
    end
    assert.equal("suspended", coroutine.status(limited))
    assert.same({}, order)
    luv.attach()
    uv.run("nowait")
    assert.same({ "time" }, order)
    luv.detach()
    cancel()
    context.dispatch()
    assert.same({ "time" }, order)
    luv.attach()
    uv.run()
    assert.same({ "time", true }, order)
  end)

  it("takes over what waits for another loop", function()
    local output = in_child [[
      local loop = require "lcontext.loop"
      loop.spawn(function() print(loop.sleep(0.01)) end)
      loop.spawn(function() error("x") end)
      assert(not pcall(loop.run))
      luv.attach()
      uv.run()
      print("over")
    ]]
    assert.equal("true\nover\n", output)
  end)

  it("takes over what waits for a controller of cqueues", function()
    local output = in_child [[
      local cqueues = require "cqueues"
      local lcqueues = require "lcontext.cqueues"
      lcqueues.attach(cqueues.new())
      coroutine.wrap(function() print(context.select(0.01)) end)()
      luv.attach()
      uv.run()
      print("over")
    ]]
    assert.equal("0.01\nover\n", output)
  end)

  it("is there again after the embedded loop has run, and no waiter is lost", function()
    local output = in_child [[
      local loop = require "lcontext.loop"
      luv.attach()
      local ctx, cancel = context.with_cancel(background)
      coroutine.wrap(function()
        ctx:done():wait()
        print("woken")
        context.select(0.002)
        print("and again")
      end)()
      loop.run(cancel)
      uv.run()
      print("over")
    ]]
    assert.equal("woken\nand again\nover\n", output)
  end)

  it("detach within a coroutine of the loop keeps what is ready", function()
    luv.attach()
    local ctx, cancel = context.with_cancel(background)
    local order = {}
    for i = 1, 3 do
      coroutine.wrap(function()
        ctx:done():wait()
        order[#order + 1] = i
        luv.detach()
      end)()
    end
    after(1, cancel)
    uv.run()
    luv.attach()
    uv.run()
    assert.same({ 1, 2, 3 }, order)
  end)

  it("detach within a callback of luv loses no waiter", function()
    luv.attach()
    local woken
    local ctx, cancel = context.with_cancel(background)
    coroutine.wrap(function() woken = ctx:done():wait() end)()
    after(0, function()
      luv.detach()
      cancel()
    end)
    uv.run()
    assert.is_nil(woken)
    luv.attach()
    uv.run()
    assert.is_true(woken)
  end)

  it("gives nil and an error when there is no descriptor to be had", function()
    local output = in_child [[
      local files = {}
      for i = 1, 100000 do
        files[i] = io.open("/dev/null")
        if not files[i] then break end
      end
      local ok, err = luv.attach()
      print(ok, type(err))
      for _, file in ipairs(files) do file:close() end
      collectgarbage()
      print(luv.attach())
      coroutine.wrap(function() print(background:with_timeout(0.005):done():wait()) end)()
      uv.run()
    ]]
    assert.equal("nil\tstring\ntrue\ntrue\n", output)
  end)
end)

describe("in the loop of luv", function()
  before_each(begin)
  after_each(finish)

  it("a coroutine waits for a deadline, a limit and the first of several", function()
    run(function()
      local live = background:with_cancel()
      local ctx = context.with_timeout(background, 0.01)
      assert.is_true(ctx:done():wait())
      assert.is_true(ctx:done():wait(0))
      assert.is_false(live:done():wait(0.005))
      assert.is_false(live:done():wait(0))
      assert.equal(0.005, context.select(live:done(), nil, 0.005))
      local soon = context.with_timeout(background, 0.005)
      assert.equal(soon:done(), context.select(live:done(), soon:done(), 10 * slow))
      assert.equal(0, leaks.more("waiters"))
    end)
  end)

  it("waiters of one context are resumed in their order", function()
    local ctx, cancel = context.with_cancel(background)
    local order, bodies = {}, {}
    for i = 1, 10 do
      bodies[i] = function()
        assert.is_true(ctx:done():wait())
        order[#order + 1] = i
      end
    end
    after(1, cancel)
    run(table.unpack(bodies))
    assert.same({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }, order)
  end)

  it("a coroutine is not resumed within cancel", function()
    local ctx, cancel = context.with_cancel(background)
    local order = {}
    run(function()
      ctx:done():wait()
      order[#order + 1] = "woken"
    end, function()
      background:with_timeout(0.002):done():wait()
      cancel()
      order[#order + 1] = "cancelled"
    end)
    assert.same({ "cancelled", "woken" }, order)
  end)

  it("timers of luv run while coroutines wait", function()
    local ctx, cancel = context.with_cancel(background)
    local ticks = 0
    local timer = uv.new_timer()
    timer:start(1, 1, function()
      ticks = ticks + 1
      if ticks == 5 then
        timer:close()
        cancel("ticks")
      end
    end)
    run(function() assert.is_true(ctx:done():wait()) end)
    assert.equal(5, ticks)
    assert.equal("ticks", ctx:cause())
  end)

  it("a TCP server, its clients and contexts live together", function()
    local server = uv.new_tcp()
    server:bind("127.0.0.1", 0)
    server:listen(64, function()
      local peer = uv.new_tcp()
      server:accept(peer)
      peer:read_start(function(_, data)
        if data == "silence" then
          return
        elseif data then
          peer:write("echo " .. data)
        else
          peer:close()
        end
      end)
    end)
    local function ask(ctx, request)
      local event, tell = context.with_cancel(ctx)
      local answer
      local client = uv.new_tcp()
      client:connect("127.0.0.1", server:getsockname().port, function(err)
        if event:err() then
          return -- closed meanwhile
        end
        assert(not err, err)
        client:read_start(function(_, data)
          answer = data
          tell()
        end)
        client:write(request)
      end)
      event:done():wait()
      client:close()
      return answer, ctx:err()
    end
    local results, bodies, left = {}, {}, 20
    for i = 1, 20 do
      bodies[i] = function()
        local ctx <close> = context.with_timeout(background, i == 7 and 0.03 * slow or 10 * slow)
        results[i] = table.pack(ask(ctx, i == 7 and "silence" or "hello " .. i))
        left = left - 1
        if left == 0 then
          server:close()
        end
      end
    end
    run(table.unpack(bodies))
    for i = 1, 20 do
      if i == 7 then
        assert.equal(context.DeadlineExceeded, results[i][2])
        assert.is_nil(results[i][1])
      else
        assert.equal("echo hello " .. i, results[i][1])
        assert.is_nil(results[i][2])
      end
    end
  end)

  it("a nested coroutine that waits is resumed by the loop", function()
    local inner, outer
    run(function()
      coroutine.wrap(function()
        coroutine.wrap(function()
          inner = background:with_timeout(0.01):done():wait()
        end)()
      end)()
      outer = background:with_timeout(0.002):done():wait()
    end)
    assert.is_true(outer)
    assert.is_true(inner)
  end)

  it("a coroutine made by a callback of luv waits", function()
    local woken
    after(1, coroutine.wrap(function()
      woken = background:with_timeout(0.005):done():wait()
    end))
    uv.run()
    assert.is_true(woken)
  end)

  it("a coroutine that yields nothing is left to a callback of luv", function()
    local order = {}
    local co
    co = coroutine.create(function()
      background:with_timeout(0.002):done():wait()
      order[#order + 1] = "woken"
      after(5, function()
        order[#order + 1] = "timer"
        coroutine.resume(co, "value")
      end)
      table.insert(order, coroutine.yield())
      table.insert(order, background:with_timeout(0.002):done():wait())
    end)
    coroutine.resume(co)
    uv.run()
    assert.same({ "woken", "timer", "value", true }, order)
  end)

  it("resuming a waiter too early does no harm", function()
    local count, early = 0, 0
    local ctx, cancel = context.with_cancel(background)
    local co = coroutine.create(function()
      assert(ctx:done():wait())
      count = count + 1
    end)
    coroutine.resume(co)
    local timer = uv.new_timer()
    timer:start(0, 2, function()
      early = early + 1
      if early <= 5 then
        local ok, done = coroutine.resume(co, "early")
        assert(ok and done == ctx:done())
        assert(leaks.more("waiters") <= 3)
      else
        timer:close()
        cancel()
      end
    end)
    uv.run()
    assert.equal(1, count)
    assert.equal("dead", coroutine.status(co))
  end)

  it("ctx:pcall stops a body that never yields, and lets one that waits go on", function()
    run(function()
      local ok, err, trace = busy.pcall_until_deadline(function() while true do end end)
      assert.is_false(ok)
      assert.equal(context.DeadlineExceeded, err)
      assert.is_string(trace)
      local roomy <close> = context.with_timeout(background, 10 * slow)
      assert.same({ true, true, 5 }, { roomy:pcall(function()
        return background:with_timeout(0.005):done():wait(), 5
      end) })
    end)
  end)

  it("ctx:pcall stops a body that waited beyond the end", function()
    run(function()
      local ok, err = busy.pcall_until_deadline(function()
        background:with_timeout(0.04):done():wait()
        while true do end
      end)
      assert.is_false(ok)
      assert.equal(context.DeadlineExceeded, err)
      local ctx, cancel = context.with_cancel(background)
      local event, tell = context.with_cancel(background)
      local went_on = false
      after(1, function()
        cancel()
        tell()
      end)
      ok, err = ctx:pcall(function()
        event:done():wait()
        while true do went_on = true end
      end)
      assert.is_false(ok)
      assert.equal(context.Canceled, err)
      assert.is_false(went_on)
      assert.is_true(background:with_timeout(0.005):done():wait())
    end)
  end)

  it("a wait in the main coroutine blocks", function()
    local order = {}
    local ctx, cancel = context.with_cancel(background)
    coroutine.wrap(function()
      ctx:done():wait()
      order[#order + 1] = "coroutine"
    end)()
    cancel()
    assert.is_true(background:with_timeout(0.01):done():wait())
    order[#order + 1] = "main"
    uv.run()
    assert.same({ "main", "coroutine" }, order)
  end)

  it("a wait where a coroutine cannot yield blocks", function()
    run(function()
      local list = { 2, 1 }
      local results = {}
      table.sort(list, function(a, b)
        results[#results + 1] = background:with_timeout(0.002):done():wait()
        return a < b
      end)
      assert.is_true(results[1])
      assert.same({ 1, 2 }, list)
    end)
  end)

  it("a wait in a __close handler is a wait like any other", function()
    local order = {}
    local ctx, cancel = context.with_cancel(background)
    run(function()
      do
        local _ <close> = setmetatable({}, { __close = function()
          table.insert(order, ctx:done():wait())
        end })
      end
      order[#order + 1] = "after"
    end, function()
      order[#order + 1] = "meanwhile"
      cancel()
    end)
    assert.same({ "meanwhile", true, "after" }, order)
  end)

  it("a wait in the __close handler of a coroutine that is closed blocks", function()
    local closed
    local co = coroutine.create(function()
      local _ <close> = setmetatable({}, { __close = function()
        closed = background:with_timeout(0.005):done():wait()
      end })
      background:with_cancel():done():wait()
    end)
    coroutine.resume(co)
    after(1, function() assert(coroutine.close(co)) end)
    uv.run()
    assert.is_true(closed)
  end)

  it("a wait in a finalizer blocks", function()
    local waited
    run(function()
      setmetatable({}, { __gc = function()
        waited = background:with_timeout(0.002):done():wait()
      end })
      collectgarbage()
    end)
    assert.is_true(waited)
  end)
end)

describe("uv.run", function()
  before_each(begin)
  after_each(finish)

  it("goes on while a coroutine waits and ends after that", function()
    local woken
    busy.waiting(function(seconds) woken = background:with_timeout(seconds):done():wait() end)
    assert.is_true(uv.loop_alive())
    uv.run()
    assert.is_true(woken)
    assert.is_false(uv.loop_alive())
  end)

  it("does not wait for a deadline that nobody waits for", function()
    local ctx <close> = context.with_timeout(background, 1000)
    ctx:after_func(function() end)
    uv.run()
    assert.is_nil(ctx:err())
  end)

  it("ends when the last one that waited is closed in a callback of luv", function()
    assert.equal("over\n", (in_child [[
      luv.attach()
      local co = coroutine.create(function() background:with_timeout(1000):done():wait() end)
      coroutine.resume(co)
      after(2, function() assert(coroutine.close(co)) end)
      uv.run()
      print("over")
    ]]))
  end)

  it("ends when the last one that waited is closed in the very last event of the loop", function()
    assert.equal("over\n", (in_child [[
      luv.attach()
      local co = coroutine.create(function() background:with_timeout(1000):done():wait() end)
      coroutine.resume(co)
      local timer = uv.new_timer()
      timer:close(function() assert(coroutine.close(co)) end)
      uv.run()
      print("over")
    ]]))
  end)

  it("ends when the last one that waited was closed before it began", function()
    assert.equal("over\n", (in_child [[
      luv.attach()
      local co = coroutine.create(function() background:with_timeout(1000):done():wait() end)
      coroutine.resume(co)
      assert(coroutine.close(co))
      uv.run()
      print("over")
    ]]))
  end)

  it("ends when the last one that waited is closed by another one", function()
    assert.equal("over\n", (in_child [[
      luv.attach()
      local co = coroutine.create(function() background:with_cancel():done():wait() end)
      coroutine.resume(co)
      coroutine.wrap(function()
        context.select(0.005)
        assert(coroutine.close(co))
      end)()
      uv.run()
      print("over")
    ]]))
  end)

  it("runs a callback that the last event of the loop has made due", function()
    local order = {}
    local ctx, cancel = context.with_cancel(background)
    ctx:after_func(function()
      order[#order + 1] = "callback"
      background:with_timeout(0.002):done():wait()
      order[#order + 1] = "waited"
    end)
    after(1, function()
      cancel()
      order[#order + 1] = "cancelled"
    end)
    uv.run()
    assert.same({ "cancelled", "callback", "waited" }, order)
  end)

  it("runs a callback that the closing of the last handle has made due", function()
    local ran = false
    local ctx, cancel = context.with_cancel(background)
    ctx:after_func(function() ran = true end)
    local timer = uv.new_timer()
    timer:close(cancel)
    uv.run()
    assert.is_true(ran)
  end)

  it("runs a callback that was due before it began", function()
    local ran = 0
    local ctx, cancel = context.with_cancel(background)
    ctx:after_func(function() ran = ran + 1 end)
    cancel()
    ctx:after_func(function() ran = ran + 1 end)
    assert.equal(0, ran)
    uv.run()
    assert.equal(2, ran)
  end)

  it("runs a callback that the last coroutine has made due", function()
    local ran = false
    run(function()
      local ctx <close> = context.with_timeout(background, 1000)
      ctx:after_func(function() ran = true end)
      context.select(0.002)
    end)
    assert.is_true(ran)
  end)

  it("may be run again and again", function()
    for _ = 1, 50 do
      local woken
      run(function() woken = background:with_timeout(0.0005):done():wait() end)
      assert.is_true(woken)
    end
  end)

  it("once and nowait take part", function()
    local ctx, cancel = context.with_cancel(background)
    local woken
    coroutine.wrap(function() woken = ctx:done():wait() end)()
    for _ = 1, 5 do
      uv.run("nowait")
    end
    assert.is_nil(woken)
    cancel()
    for _ = 1, 5 do
      uv.run("nowait")
    end
    assert.is_true(woken)
  end)

  it("sleeps while a coroutine waits", function()
    local start = os.clock()
    run(function() background:with_timeout(0.2):done():wait() end)
    assert.is_true(os.clock() - start < 0.05 * slow)
  end)
end)

describe("callbacks in the loop of luv", function()
  before_each(begin)
  after_each(finish)

  it("run in order, one by one, as tasks", function()
    local order = {}
    local one, cancel_one = context.with_cancel(background)
    local two, cancel_two = context.with_cancel(background)
    local three, cancel_three = context.with_cancel(background)
    one:after_func(function() order[#order + 1] = 2 end)
    one:after_func(function()
      order[#order + 1] = 3
      cancel_three()
    end)
    two:after_func(function()
      order[#order + 1] = 1
      assert(coroutine.isyieldable())
      three:done():wait()
      order[#order + 1] = 4
    end)
    after(1, function()
      cancel_two()
      cancel_one()
      order[#order + 1] = "cancelled"
    end)
    uv.run()
    assert.same({ "cancelled", 1, 2, 3, 4 }, order)
  end)

  it("may cancel: what follows runs behind", function()
    local order = {}
    local two, cancel_two = context.with_cancel(background)
    two:after_func(function() order[#order + 1] = "two" end)
    local one, cancel_one = context.with_cancel(background)
    one:after_func(function()
      cancel_two()
      order[#order + 1] = "one"
    end)
    one:after_func(function() order[#order + 1] = "one again" end)
    after(1, cancel_one)
    uv.run()
    assert.same({ "one", "one again", "two" }, order)
  end)

  it("of deadlines run while the loop runs for something else", function()
    local ran = 0
    local ctx = context.with_timeout(background, 0.005)
    ctx:after_func(function() ran = ran + 1 end)
    run_until(function() return ran > 0 end)
    assert.equal(1, ran)
  end)

  it("that fail are reported, the others run, and the loop goes on", function()
    local output = in_child [[
      warn("@on")
      luv.attach()
      local ctx, cancel = context.with_cancel(background)
      ctx:after_func(function() error("the problem") end)
      local all = false
      ctx:after_func(function() context.select(0.002) all = true error({}) end)
      ctx:after_func(function() print("another") end)
      local timer = uv.new_timer()
      timer:start(1, 1, function() if all then timer:close() print("timer") end end)
      after(1, cancel)
      uv.run()
      print("over")
    ]]
    assert.matches("error in a callback: .-the problem", output)
    assert.matches("error in a callback: table", output)
    assert.matches("another\n.*timer\nover\n", output)
  end)

  it("can be stopped until they run", function()
    local ran = false
    local ctx, cancel = context.with_cancel(background)
    local stop = ctx:after_func(function() ran = true end)
    after(1, function()
      cancel()
      assert(stop())
    end)
    uv.run()
    assert.is_false(ran)
  end)

  it("may detach, and attach again", function()
    local order = {}
    local ctx, cancel = context.with_cancel(background)
    local second, second_over = context.with_cancel(background)
    ctx:after_func(function()
      luv.detach()
      order[#order + 1] = "detached"
      assert(luv.attach())
      second:done():wait()
      order[#order + 1] = "waited"
    end)
    ctx:after_func(function()
      order[#order + 1] = "second"
      second_over()
    end)
    after(1, cancel)
    uv.run()
    assert.same({ "detached", "second", "waited" }, order)
  end)
end)

describe("a process that uses luv", function()
  it("may end while coroutines wait and callbacks are due", function()
    for _, ending in ipairs { "", "os.exit(0, true)", "luv.detach() os.exit(0, true)" } do
      local output = in_child([[
        luv.attach()
        local ctx, cancel = context.with_cancel(background)
        for _ = 1, 10 do
          coroutine.wrap(function()
            local child <close> = context.with_timeout(ctx, 1000)
            child:done():wait()
            print("never")
          end)()
        end
        ctx:after_func(function() print("never") end)
        after(1000000, print)
        uv.run("nowait")
        local soon = background:with_timeout(0.001)
        soon:after_func(function() print("never") end)
        soon:done():wait()
        cancel()
        print("over")
      ]] .. ending)
      assert.equal("over\n", output)
    end
  end)
end)

describe("an error of a coroutine in the loop of luv", function()
  it("reaches luv, with its message and its traceback", function()
    local output = in_child([[
      luv.attach()
      local function culprit() error("the problem") end
      local ctx, cancel = context.with_cancel(background)
      coroutine.wrap(function()
        ctx:done():wait()
        culprit()
      end)()
      after(1, cancel)
      uv.run()
      print("not reached")
    ]], 255)
    assert.matches("Uncaught Error", output)
    assert.matches("the problem", output)
    assert.matches("culprit", output)
    assert.not_matches("not reached", output)
  end)

  it("closes its variables", function()
    local output = in_child([[
      luv.attach()
      local ctx, cancel = context.with_cancel(background)
      coroutine.wrap(function()
        local _ <close> = setmetatable({}, { __close = function() print("closed") end })
        ctx:done():wait()
        error("the problem")
      end)()
      after(1, cancel)
      uv.run()
    ]], 255)
    assert.matches("closed\n", output)
  end)

  it("that is caught is the coroutine's own business", function()
    begin()
    local ok, err
    run(function()
      ok, err = pcall(function()
        context.select(0.002)
        error("caught", 0)
      end)
      context.select(0.002)
    end)
    assert.is_false(ok)
    assert.equal("caught", err)
    finish()
  end)

  it("before it first waits is its resumer's", function()
    begin()
    assert.error_matches(function() coroutine.wrap(function() error("early") end)() end, "early")
    uv.run()
    finish()
  end)
end)

describe("waiters in the loop of luv", function()
  before_each(begin)
  after_each(finish)

  it("are resumed once, however their wait ends", function()
    local ctx, cancel = context.with_cancel(background)
    local resumed = { 0, 0, 0, 0 }
    local function count(i, ...)
      resumed[i] = resumed[i] + 1
      return ...
    end
    local woken = coroutine.create(function() count(1, ctx:done():wait()) coroutine.yield() count(1) end)
    local timed = coroutine.create(function() count(2, ctx:done():wait(0.002)) coroutine.yield() count(2) end)
    local closed = coroutine.create(function() count(3, ctx:done():wait()) end)
    local failed = coroutine.create(function()
      pcall(function()
        context.select(ctx:done(), 0.002)
        error("x")
      end)
      count(4)
      coroutine.yield()
      count(4)
    end)
    for _, co in ipairs { woken, timed, closed, failed } do
      assert(coroutine.resume(co))
    end
    -- Less those whose time was up before they could wait.
    assert.is_true(leaks.more("waiters") >= 4 - resumed[2] - resumed[4])
    coroutine.close(closed)
    run_until(function()
      if resumed[2] + resumed[4] == 2 then
        cancel()
      end
      return resumed[1] == 1
    end)
    assert.same({ 1, 1, 0, 1 }, resumed)
    assert.equal(0, leaks.more("waiters"))
    assert.is_true(leaks.settles("timers", 0))
    cancel()
    uv.run()
    assert.same({ 1, 1, 0, 1 }, resumed)
  end)

  it("that are closed after they were woken, before their turn, are not resumed", function()
    local ctx, cancel = context.with_cancel(background)
    local log = {}
    local second
    coroutine.wrap(function()
      ctx:done():wait()
      log[#log + 1] = "first"
      assert(coroutine.close(second))
    end)()
    second = coroutine.create(function()
      ctx:done():wait()
      log[#log + 1] = "second"
    end)
    coroutine.resume(second)
    after(1, cancel)
    uv.run()
    assert.same({ "first" }, log)
  end)

  it("10,000 on 10,000 contexts: one cancel wakes all, without descriptors of their own", function()
    local parent, cancel = context.with_cancel(background)
    local open = descriptors()
    local woken = 0
    for _ = 1, 10000 do
      coroutine.wrap(function()
        local ctx <close> = context.with_cancel(parent)
        if ctx:done():wait() then
          woken = woken + 1
        end
      end)()
    end
    assert.is_true(descriptors() <= open)
    assert.is_true(leaks.more("waiters") >= 10000)
    after(1, function()
      assert(descriptors() <= open)
      cancel()
    end)
    uv.run()
    assert.equal(10000, woken)
    assert.equal(0, leaks.more("waiters"))
  end)

  it("on many deadlines do not keep the processor busy", function()
    local woken = 0
    for _ = 1, 1000 do
      coroutine.wrap(function()
        background:with_timeout(0.2):done():wait()
        woken = woken + 1
      end)()
    end
    local start = os.clock()
    uv.run()
    assert.equal(1000, woken)
    assert.is_true(os.clock() - start < 0.1 * slow)
  end)
end)
