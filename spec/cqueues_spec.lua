local context = require "lcontext"
local busy = require "spec.support.busy"
local condition = require "cqueues.condition"
local cqueues = require "cqueues"
local lcqueues = require "lcontext.cqueues"
local csocket = require "cqueues.socket"
local child_process = require "spec.support.child"
local descriptors = require "spec.support.descriptors"
local leaks = require "spec.support.leaks"

local background = context.background()
local slow = os.getenv("LCONTEXT_SLOW") and 20 or 1
local original_yield = coroutine.yield

local controller

-- What would hang in a process of its own.
local function in_child(script)
  local output, status = child_process.run([[
    local context = require "lcontext"
    local cqueues = require "cqueues"
    local lcqueues = require "lcontext.cqueues"
    local background = context.background()
    local controller = cqueues.new()
  ]] .. script)
  assert.not_equal(124, status, "it hangs: " .. output)
  assert.equal(0, status, output)
  return output
end

-- Runs each f as a coroutine of the controller, and its loop until it ends.
local function run(...)
  local over = 0
  for _, f in ipairs { ... } do
    controller:wrap(function()
      f()
      over = over + 1
    end)
  end
  local ok, err = controller:loop()
  if not ok then
    error(err, 0)
  end
  assert.equal(select("#", ...), over)
end

local function begin()
  leaks.before()
  controller = cqueues.new()
  assert.is_true(lcqueues.attach(controller))
end

local function finish()
  lcqueues.detach()
  controller = nil
  leaks.after()
  assert.equal(original_yield, coroutine.yield)
end

describe("cqueues.poll of a Done with nothing attached", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("in the main coroutine gives the Done at its deadline, or the time", function()
    local ctx = context.with_timeout(background, 0.01)
    assert.equal(ctx:done(), cqueues.poll(ctx:done(), 10 * slow))
    assert.equal(context.DeadlineExceeded, ctx:err())
    assert.equal(0.005, cqueues.poll(background:with_cancel():done(), 0.005))
  end)

  it("gives the Done at its deadline", function()
    local cq = cqueues.new()
    local ready
    cq:wrap(function()
      local ctx = context.with_timeout(background, 0.01)
      ready = cqueues.poll(ctx:done(), 10 * slow) == ctx:done() and ctx:err()
    end)
    assert(cq:loop())
    assert.equal(context.DeadlineExceeded, ready)
  end)

  it("gives the seconds when the time is up", function()
    local cq = cqueues.new()
    local ready
    cq:wrap(function()
      ready = cqueues.poll(background:with_cancel():done(), 0.005)
    end)
    assert(cq:loop())
    assert.equal(0.005, ready)
  end)

  it("gives a Done that another coroutine cancels, and only that", function()
    local cq = cqueues.new()
    local one, two = background:with_cancel(), background:with_timeout(1000)
    local three, cancel = context.with_cancel(background)
    local ready
    cq:wrap(function() ready = table.pack(cqueues.poll(one:done(), two:done(), three:done(), 10 * slow)) end)
    cq:wrap(function()
      cqueues.sleep(0.002)
      cancel()
    end)
    assert(cq:loop())
    assert.same({ three:done(), n = 1 }, ready)
  end)

  it("gives all that are ready", function()
    local cq = cqueues.new()
    local parent, cancel = context.with_cancel(background)
    local one, two = parent:with_cancel(), parent:with_cancel()
    local live = background:with_cancel()
    local ready = {}
    cq:wrap(function()
      for _, done in ipairs { cqueues.poll(one:done(), live:done(), two:done(), 10 * slow) } do
        ready[done] = true
      end
    end)
    cq:wrap(cancel)
    assert(cq:loop())
    assert.same({ [one:done()] = true, [two:done()] = true }, ready)
  end)

  it("gives one that has ended before at once", function()
    local ended = context.with_timeout(background, 0)
    local cq = cqueues.new()
    local ready = {}
    cq:wrap(function()
      for i = 1, 3 do
        ready[i] = cqueues.poll(ended:done(), 10 * slow)
      end
    end)
    local start = context.now()
    assert(cq:loop())
    assert.same({ ended:done(), ended:done(), ended:done() }, ready)
    assert.is_true(context.now() - start < 5 * slow)
  end)

  it("wakes no sooner than the Done is closed", function()
    local cq = cqueues.new()
    local early = 0
    for i = 1, 10 do
      cq:wrap(function()
        for j = 1, 40 do
          local ctx = context.with_timeout(background, (i * 7 + j * 13) % 100 / 30000)
          local done = ctx:done()
          local ready = cqueues.poll(done, 10 * slow)
          if ready ~= done or not done:closed() then
            early = early + 1
          end
        end
      end)
    end
    assert(cq:loop())
    assert.equal(0, early)
    for j = 1, 100 do
      local done = context.with_timeout(background, j % 10 / 10000):done()
      assert.equal(done, cqueues.poll(done, 10 * slow))
      assert.is_true(done:closed())
    end
  end)

  it("beside a socket gives what is ready", function()
    local cq = cqueues.new()
    local one, other = csocket.pair()
    local results = {}
    cq:wrap(function()
      local ctx, cancel = context.with_cancel(background)
      one:settimeout(10 * slow)
      local readable = { pollfd = one:pollfd(), events = "r" }
      results[1] = cqueues.poll(ctx:done(), readable, 0.002)
      other:write("hello\n")
      other:flush()
      results[2] = cqueues.poll(ctx:done(), readable, 10 * slow) == readable
      results[3] = one:read("*l")
      cancel()
      results[4] = cqueues.poll(readable, ctx:done(), 10 * slow) == ctx:done()
    end)
    local ok, err = cq:loop()
    one:close()
    other:close()
    assert.is_true(ok, tostring(err))
    assert.same({ 0.002, true, "hello", true }, results)
  end)

  it("by several coroutines of the same one wakes all", function()
    local cq = cqueues.new()
    local ctx, cancel = context.with_cancel(background)
    local woken = 0
    for _ = 1, 10 do
      cq:wrap(function()
        assert(cqueues.poll(ctx:done(), 10 * slow) == ctx:done())
        woken = woken + 1
      end)
    end
    cq:wrap(cancel)
    assert(cq:loop())
    assert.equal(10, woken)
  end)

  it("lets a Done be collected by which nobody is woken any more", function()
    local cq = cqueues.new()
    local open = descriptors()
    cq:wrap(function()
      for _ = 1, 300 do
        cqueues.poll(background:with_cancel():done(), 0)
        collectgarbage("step", 100)
      end
    end)
    assert(cq:loop())
    collectgarbage()
    collectgarbage()
    assert.is_true(descriptors() <= open + 5)
  end)
end)

describe("attach to cqueues", function()
  before_each(begin)
  after_each(finish)

  it("takes a controller and nothing else", function()
    for _, wrong in ipairs { 1, "x", {}, true, print, io.stdout, background, condition.new(),
      coroutine.create(print) } do
      assert.error_matches(function() lcqueues.attach(wrong) end, "bad argument #1 to 'attach' %(controller expected")
    end
    assert.error_matches(function() lcqueues.attach() end, "bad argument #1 to 'attach' %(controller expected, got nil")
    local woken
    run(function() woken = background:with_timeout(0.002):done():wait() end)
    assert.is_true(woken)
  end)

  it("may be called again, and undone again", function()
    assert.is_true(lcqueues.attach(controller))
    lcqueues.detach()
    lcqueues.detach()
    assert.is_true(lcqueues.attach(controller))
    assert.is_true(lcqueues.attach(controller))
    run(function() assert(background:with_timeout(0.002):done():wait() == true) end)
  end)

  it("leaves the controller empty, and its loop with nothing to do", function()
    assert.equal(0, controller:count())
    assert.is_true(controller:empty())
    local start = context.now()
    assert.is_true((controller:loop()))
    assert.is_true((controller:loop()))
    assert.is_true((controller:loop(30 * slow)))
    assert.is_true(context.now() - start < 10 * slow)
    assert.equal(0, controller:count())
    assert.is_true(controller:empty())
  end)

  it("leaves other controllers alone", function()
    local other = cqueues.new()
    assert.equal(0, other:count())
    assert.is_true(other:empty())
    local ran
    other:wrap(function()
      cqueues.sleep(0.001)
      ran = true
    end)
    assert.equal(1, other:count())
    assert.is_false(other:empty())
    assert(other:loop())
    assert.is_true(ran)
  end)

  it("leaves coroutine.yield what it was for everything else", function()
    local co = coroutine.wrap(function(...)
      local got = table.pack(coroutine.yield(...))
      return got.n, background:with_cancel():done()
    end)
    assert.same({ 1, "two" }, { co(1, "two") })
    assert.equal(3, (co(nil, nil, nil)))
    local live = background:with_cancel():done()
    local generator = coroutine.wrap(function() coroutine.yield(live) end)
    assert.equal(live, generator())
    run(function()
      local inner = coroutine.wrap(function() coroutine.yield(live, 2) end)
      assert(inner() == live)
    end)
  end)

  it("to another controller: each coroutine goes on in its own", function()
    local order = {}
    local ctx, cancel = context.with_cancel(background)
    controller:wrap(function()
      assert(context.select(ctx:done(), 60 * slow) == ctx:done())
      order[#order + 1] = "first"
    end)
    assert(controller:step(0))
    local other = cqueues.new()
    assert.is_true(lcqueues.attach(other))
    other:wrap(function()
      cancel()
      assert(context.select(0.02) == 0.02)
      order[#order + 1] = "second"
    end)
    assert(other:loop())
    assert.same({ "second" }, order)
    assert(controller:loop())
    assert.same({ "second", "first" }, order)
    assert.equal(0, other:count())
    assert.equal(0, controller:count())
  end)

  it("within a coroutine of the controller takes effect", function()
    local other = cqueues.new()
    local order = {}
    run(function()
      lcqueues.attach(other)
      lcqueues.attach(controller)
      assert(context.select(0.002) == 0.002)
      order[#order + 1] = "again"
      lcqueues.detach()
      cqueues.sleep(0.002)
      lcqueues.attach(controller)
      assert(background:with_timeout(0.002):done():wait())
      order[#order + 1] = "and again"
    end)
    assert.same({ "again", "and again" }, order)
    assert(other:loop())
  end)

  it("after detach lets who waited meanwhile go on", function()
    local order = {}
    local ctx, cancel = context.with_cancel(background)
    local function wait()
      assert(context.select(ctx:done(), 60 * slow) == ctx:done())
    end
    controller:wrap(function()
      wait()
      order[#order + 1] = "of the controller"
    end)
    controller:wrap(function()
      coroutine.wrap(function()
        wait()
        order[#order + 1] = "nested"
      end)()
    end)
    coroutine.wrap(function()
      wait()
      order[#order + 1] = "main's"
    end)()
    assert(controller:step(0))
    assert(controller:step(0))
    lcqueues.detach()
    assert(controller:step(0))
    assert.same({}, order)
    cancel()
    context.dispatch()
    assert(controller:step(0))
    assert.same({ "of the controller" }, order) -- that one resumes its own
    lcqueues.attach(controller)
    assert(controller:loop())
    table.sort(order)
    assert.same({ "main's", "nested", "of the controller" }, order)
    assert.equal(0, controller:count())
  end)

  it("after detach lets who is not due yet wait on", function()
    local ctx, cancel = context.with_cancel(background)
    local woken = 0
    for _ = 1, 3 do
      controller:wrap(function()
        assert(ctx:done():wait())
        woken = woken + 1
      end)
    end
    coroutine.wrap(function()
      assert(ctx:done():wait())
      woken = woken + 1
    end)()
    for _ = 1, 3 do
      assert(controller:step(0))
      lcqueues.detach()
      assert(controller:step(0))
      lcqueues.attach(controller)
    end
    assert.equal(0, woken)
    controller:wrap(function() cancel() end)
    assert(controller:loop())
    assert.equal(4, woken)
  end)

  it("a detached controller is one like any other", function()
    lcqueues.detach()
    local ran
    controller:wrap(function()
      cqueues.sleep(0.001)
      ran = true
    end)
    assert.is_true((controller:loop()))
    assert.is_true(ran)
    assert.equal(0, controller:count())
    assert.is_true(controller:empty())
  end)

  it("undone leaves a controller that is empty", function()
    for _ = 1, 3 do
      lcqueues.detach()
      assert.equal(0, controller:count())
      assert.is_true(controller:empty())
      lcqueues.attach(controller)
      assert.equal(0, controller:count())
      assert.is_true(controller:empty())
    end
  end)

  it("is there again after the embedded loop has run, and resumes its own coroutines itself", function()
    local output = in_child [[
      local loop = require "lcontext.loop"
      lcqueues.attach(controller)
      controller:wrap(function()
        print(context.select(0.005))
        print(select(2, cqueues.running()))
        cqueues.sleep(0.001)
        print("over")
      end)
      assert(controller:step(0))
      loop.run(loop.sleep, 0.02)
      print((controller:loop(60)))
      print(controller:count(), controller:empty())
    ]]
    assert.equal("0.005\ntrue\nover\ntrue\n0\ttrue\n", output)
  end)

  it("of another loop leaves the coroutines of cqueues to their controller", function()
    local output = in_child [[
      local luv = require "lcontext.luv"
      local uv = require "luv"
      lcqueues.attach(controller)
      controller:wrap(function()
        print(context.select(0.005))
        print(select(2, cqueues.running()))
        cqueues.sleep(0.001)
        print("over")
      end)
      assert(controller:step(0))
      luv.attach()
      coroutine.wrap(function() context.select(0.02) end)()
      uv.run()
      luv.detach()
      lcqueues.attach(controller)
      print((controller:loop(60)))
      print(controller:count(), controller:empty())
    ]]
    assert.equal("0.005\ntrue\nover\ntrue\n0\ttrue\n", output)
  end)

  it("keeps no controller that was attached before", function()
    local weak = setmetatable({}, { __mode = "k" })
    for _ = 1, 3 do
      local cq = cqueues.new()
      weak[cq] = true
      assert.is_true(lcqueues.attach(cq))
      cq:wrap(function() context.select(0.001) end)
      assert(cq:loop())
    end
    lcqueues.detach()
    collectgarbage()
    collectgarbage()
    collectgarbage()
    assert.is_nil(next(weak))
  end)

  it("gives nil and an error when there is no descriptor to be had", function()
    local output = in_child [[
      local files = {}
      for i = 1, 100000 do
        files[i] = io.open("/dev/null")
        if not files[i] then break end
      end
      local ok, err = lcqueues.attach(controller)
      print(ok, type(err))
      for _, file in ipairs(files) do file:close() end
      collectgarbage()
      print(lcqueues.attach(controller))
      controller:wrap(function() print(background:with_timeout(0.005):done():wait()) end)
      assert(controller:loop())
    ]]
    assert.equal("nil\tstring\ntrue\ntrue\n", output)
  end)
end)

describe("in a controller of cqueues", function()
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
    end)
    assert.equal(0, leaks.more("waiters"))
    assert.is_true(leaks.settles("timers", 0))
  end)

  it("a Done may be yielded", function()
    run(function()
      local ctx = context.with_timeout(background, 0.005)
      assert.equal(ctx:done(), coroutine.yield(ctx:done()))
      local live = background:with_cancel():done()
      assert.equal(0.005, coroutine.yield(live, 0.005))
      assert.equal(ctx:done(), coroutine.yield(ctx:done(), live))
    end)
  end)

  it("cqueues.poll takes Dones, and sleeps are as ever", function()
    run(function()
      local ctx = context.with_timeout(background, 0.005)
      assert.equal(ctx:done(), cqueues.poll(ctx:done(), 10 * slow))
      cqueues.sleep(0.001)
      assert.equal(0.001, cqueues.poll(0.001))
    end)
  end)

  it("waiters of one context go on when another coroutine cancels, not within cancel", function()
    local ctx, cancel = context.with_cancel(background)
    local order = {}
    run(function()
      assert.is_true(ctx:done():wait())
      order[#order + 1] = "woken"
    end, function()
      assert.equal(ctx:done(), context.select(ctx:done(), 10 * slow))
      order[#order + 1] = "woken"
    end, function()
      cqueues.sleep(0.002)
      cancel()
      order[#order + 1] = "cancelled"
    end)
    assert.same({ "cancelled", "woken", "woken" }, order)
  end)

  it("a nested coroutine that waits is resumed by the loop", function()
    local inner, innermost
    local ctx, cancel = context.with_cancel(background)
    run(function()
      local co = coroutine.create(function()
        coroutine.wrap(function()
          innermost = background:with_timeout(0.005):done():wait()
        end)()
        inner = ctx:done():wait()
      end)
      assert(coroutine.resume(co))
      assert(coroutine.status(co) == "suspended")
      cancel()
      assert(coroutine.status(co) == "suspended")
    end)
    assert.is_true(inner)
    assert.is_true(innermost)
  end)

  it("a coroutine made in the main one that waits is resumed by the loop", function()
    local log = {}
    local ctx, cancel = context.with_cancel(background)
    coroutine.wrap(function()
      assert(ctx:done():wait())
      log[#log + 1] = "one"
      assert(context.select(0.002) == 0.002)
      log[#log + 1] = "two"
    end)()
    assert.is_false(controller:empty())
    controller:wrap(function() cancel() end)
    assert.is_true((controller:loop()))
    assert.same({ "one", "two" }, log)
  end)

  it("a coroutine made in the main one finds itself in the loop after its first wait", function()
    local log = {}
    coroutine.wrap(function()
      context.select(0.001)
      for i = 1, 3 do
        context.select(0.001)
        log[i] = background:with_timeout(0.001):done():wait()
      end
    end)()
    assert.is_true((controller:loop()))
    assert.same({ true, true, true }, log)
  end)

  it("controllers in controllers: the inner one attached", function()
    local outer, inner = cqueues.new(), controller
    local first, first_over = context.with_cancel(background)
    local order = {}
    inner:wrap(function()
      assert(background:with_timeout(0.01):done():wait())
      cqueues.sleep(0.002)
      assert(context.select(0.002) == 0.002)
      assert(first:done():wait())
      order[#order + 1] = "inner"
    end)
    outer:wrap(function()
      assert(background:with_timeout(0.002):done():wait())
      order[#order + 1] = "outer"
      first_over()
    end)
    outer:wrap(function()
      assert(inner:loop())
      order[#order + 1] = "over"
    end)
    local ok, err = outer:loop()
    assert.is_true(ok, tostring(err))
    assert.same({ "outer", "inner", "over" }, order)
  end)

  it("controllers in controllers: the outer one attached", function()
    local outer, inner = controller, cqueues.new()
    local first, first_over = context.with_cancel(background)
    local order = {}
    inner:wrap(function()
      assert(background:with_timeout(0.01):done():wait())
      cqueues.sleep(0.002)
      assert(context.select(0.002) == 0.002)
      assert(first:done():wait())
      order[#order + 1] = "inner"
    end)
    outer:wrap(function()
      assert(background:with_timeout(0.002):done():wait())
      order[#order + 1] = "outer"
      first_over()
    end)
    outer:wrap(function()
      assert(inner:loop())
      order[#order + 1] = "over"
    end)
    local ok, err = outer:loop()
    assert.is_true(ok, tostring(err))
    assert.same({ "outer", "inner", "over" }, order)
  end)

  it("a TCP server, its clients and contexts live together", function()
    local server = csocket.listen { host = "127.0.0.1", port = 0 }
    assert(server:listen())
    local _, _, port = server:localname()
    local parent, cancel = context.with_cancel(background)
    controller:wrap(function()
      while not parent:err() do
        cqueues.poll({ pollfd = server:pollfd(), events = "r" }, parent:done())
        local peer = server:accept(0)
        if peer then
          controller:wrap(function()
            peer:setmode("bf", "bl")
            for line in peer:lines("*l") do
              if line ~= "silence" then
                peer:write("echo ", line, "\n")
              end
            end
            peer:close()
          end)
        end
      end
      server:close()
    end)
    local results, left = {}, 10
    for i = 1, 10 do
      controller:wrap(function()
        local ctx <close> = context.with_timeout(parent, i == 7 and 0.03 * slow or 10 * slow)
        local client = csocket.connect("127.0.0.1", port)
        client:onerror(function(_, _, code) return code end)
        client:setmode("bf", "bl")
        client:settimeout(ctx:remaining())
        client:write(i == 7 and "silence\n" or "hello " .. i .. "\n")
        local readable = { pollfd = client:pollfd(), events = "r" }
        if cqueues.poll(readable, ctx:done()) == readable then
          results[i] = client:read("*l")
        end
        results[i] = results[i] or tostring((ctx:done():wait(0.1 * slow) and ctx:err()))
        client:close()
        left = left - 1
        if left == 0 then
          cancel()
        end
      end)
    end
    local ok, err = controller:loop()
    assert.is_true(ok, tostring(err))
    for i = 1, 10 do
      assert.equal(i == 7 and "context deadline exceeded" or "echo hello " .. i, results[i])
    end
  end)

  it("resuming a waiter too early does no harm", function()
    local count = 0
    local ctx, cancel = context.with_cancel(background)
    local co = coroutine.create(function()
      assert(ctx:done():wait())
      count = count + 1
    end)
    assert(coroutine.resume(co))
    run(function()
      for _ = 1, 5 do
        cqueues.sleep(0.001)
        local ok, done = coroutine.resume(co, "early")
        assert(ok and done == ctx:done())
      end
      cancel()
    end)
    assert.equal(1, count)
    assert.equal("dead", coroutine.status(co))
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
    assert(controller:loop())
    assert.same({ "main", "coroutine" }, order)
  end)

  it("a wait where a coroutine cannot yield blocks", function()
    run(function()
      local result
      table.sort({ 2, 1 }, function(a, b)
        result = background:with_timeout(0.002):done():wait()
        return a < b
      end)
      assert.is_true(result)
      assert.is_true(background:with_timeout(0.002):done():wait())
    end)
  end)

  it("a wait in a __close handler and in a finalizer is one like any other", function()
    local closed, collected
    run(function()
      do
        local _ <close> = setmetatable({}, { __close = function()
          closed = background:with_timeout(0.002):done():wait()
        end })
      end
      setmetatable({}, { __gc = function() collected = background:with_timeout(0.002):done():wait() end })
      collectgarbage()
      context.select(0.001)
    end)
    assert.is_true(closed)
    assert.is_true(collected)
  end)

  it("a wait in a __close handler while an error passes is one, too", function()
    local closed, ok, err
    run(function()
      ok, err = pcall(function()
        local _ <close> = setmetatable({}, { __close = function()
          closed = context.select(0.002)
        end })
        error("the problem", 0)
      end)
    end)
    assert.equal(0.002, closed)
    assert.same({ false, "the problem" }, { ok, err })
  end)
end)

describe("controller:loop", function()
  before_each(begin)
  after_each(finish)

  it("ends when all is done, and may be run again", function()
    for i = 1, 30 do
      local woken
      assert.is_true(controller:empty())
      controller:wrap(function() woken = background:with_timeout(0.0005):done():wait() end)
      assert.equal(1, controller:count())
      assert.is_false(controller:empty())
      assert.is_true((controller:loop()))
      assert.is_true(woken, "round " .. i)
      assert.equal(0, controller:count())
    end
  end)

  it("does not wait for a deadline that nobody waits for", function()
    local ctx <close> = context.with_timeout(background, 1000)
    ctx:after_func(function() end)
    run(function() context.select(0.001) end)
    assert.is_nil(ctx:err())
  end)

  it("takes a time limit", function()
    local ctx, cancel = context.with_cancel(background)
    local woken
    controller:wrap(function() woken = context.select(ctx:done(), 60 * slow) end)
    assert.is_true((controller:loop(0.005)))
    assert.is_nil(woken)
    assert.is_true((controller:loop(0)))
    assert.is_nil(woken)
    cancel()
    assert.is_true((controller:loop()))
    assert.equal(ctx:done(), woken)
  end)

  it("step waits no longer than it is told to", function()
    local ctx, cancel = context.with_cancel(background)
    local woken
    controller:wrap(function() woken = context.select(ctx:done(), 30 * slow) end)
    assert.is_true((controller:step(0)))
    local start = context.now()
    assert.is_true((controller:step(0.005)))
    assert.is_true(context.now() - start < 10 * slow)
    assert.is_nil(woken)
    cancel()
    for _ = 1, 100 do
      if woken then
        break
      end
      assert.is_true((controller:step(0.01)))
    end
    assert.equal(ctx:done(), woken)
  end)

  it("step is woken by a cancel of a coroutine", function()
    local ctx, cancel = context.with_cancel(background)
    local woken
    controller:wrap(function() woken = ctx:done():wait() end)
    controller:wrap(function() cancel() end)
    for _ = 1, 5 do
      assert.is_true((controller:step(0)))
    end
    assert.is_true(woken)
  end)

  it("ends when the last one that waited was closed by another one", function()
    assert.equal("true\nover\n", (in_child [[
      lcqueues.attach(controller)
      local co = coroutine.create(function() background:with_cancel():done():wait() end)
      coroutine.resume(co)
      controller:wrap(function()
        context.select(0.005)
        assert(coroutine.close(co))
      end)
      print((controller:loop()))
      print("over")
    ]]))
  end)

  it("ends when the last one that waited was closed before", function()
    assert.equal("true\nover\n", (in_child [[
      lcqueues.attach(controller)
      local co = coroutine.create(function() background:with_cancel():done():wait() end)
      coroutine.resume(co)
      assert(coroutine.close(co))
      print((controller:loop()))
      print("over")
    ]]))
  end)

  it("ends when the last one that waited is closed by a callback", function()
    assert.equal("true\nover\n", (in_child [[
      lcqueues.attach(controller)
      local co = coroutine.create(function() background:with_cancel():done():wait() end)
      coroutine.resume(co)
      local ctx, cancel = context.with_cancel(background)
      ctx:after_func(function() context.select(0.002) assert(coroutine.close(co)) end)
      cancel()
      print((controller:loop()))
      print("over")
    ]]))
  end)

  it("sleeps while a coroutine waits", function()
    local start = os.clock()
    run(function() background:with_timeout(0.2):done():wait() end)
    assert.is_true(os.clock() - start < 0.05 * slow)
  end)

  it("that a context has stopped can be run again", function()
    local woken = 0
    for round = 1, 3 do
      local release, cancel = context.with_cancel(background)
      controller:wrap(function()
        assert(context.select(release:done(), 60 * slow) == release:done())
        woken = woken + 1
      end)
      local ok, err, trace = busy.pcall_until_deadline(function() return assert(controller:loop()) end)
      assert.is_false(ok)
      assert.equal(context.DeadlineExceeded, err)
      assert.is_string(trace)
      assert.equal(round - 1, woken)
      cancel()
      assert.is_true((controller:loop()))
      assert.equal(round, woken)
    end
    assert.equal(0, controller:count())
    assert.is_true(controller:empty())
  end)
end)

describe("ctx:pcall in a coroutine of cqueues", function()
  before_each(begin)
  after_each(finish)

  it("stops a body that never yields", function()
    local meanwhile
    run(function()
      local ok, err, trace = busy.pcall_until_deadline(function() while true do end end)
      assert.is_false(ok)
      assert.equal(context.DeadlineExceeded, err)
      assert.is_string(trace)
      assert.is_true(background:with_timeout(0.002):done():wait())
    end, function() meanwhile = context.select(0.001) end)
    assert.equal(0.001, meanwhile)
  end)

  it("lets a body sleep, poll and wait", function()
    run(function()
      local ctx <close> = context.with_timeout(background, 10 * slow)
      local results = { ctx:pcall(function(...)
        cqueues.sleep(0.002)
        local done = background:with_timeout(0.002):done()
        assert(cqueues.poll(done) == done)
        return background:with_timeout(0.002):done():wait(), context.select(0.002), ...
      end, "an argument") }
      assert.same({ true, true, 0.002, "an argument" }, results)
      assert.same({ false, "its own" }, { ctx:pcall(function()
        context.select(0.002)
        error("its own", 0)
      end) })
    end)
  end)

  it("stops a body that sleeps or waits beyond the end", function()
    run(function()
      local function wait(seconds)
        background:with_timeout(seconds):done():wait()
      end
      for _, sleep in ipairs { cqueues.sleep, context.select, wait } do
        local ok, err = busy.pcall_until_deadline(function()
          sleep(0.04)
          while true do end
        end)
        assert.is_false(ok)
        assert.equal(context.DeadlineExceeded, err)
        local ctx, cancel = context.with_cancel(background)
        local begun, cancelled, went_on = false, false, false
        controller:wrap(function()
          while not begun do
            cqueues.sleep(0.001)
          end
          cancel()
          cancelled = true
        end)
        ok, err = ctx:pcall(function()
          begun = true
          repeat
            sleep(0.005)
          until cancelled
          while true do went_on = true end
        end)
        assert.is_false(ok)
        assert.equal(context.Canceled, err)
        assert.is_false(went_on)
        assert.equal(0.002, context.select(0.002))
      end
    end)
  end)

  it("of many at once stops those that it should", function()
    local bodies, results = {}, {}
    for i = 1, 20 do
      bodies[i] = function()
        local ctx <close> = context.with_timeout(background, i % 2 == 0 and 0.01 or 100)
        local ok, err = ctx:pcall(function()
          context.select(0.001)
          while i % 2 == 0 do end
          context.select(0.001)
        end)
        results[i] = ok or err
      end
    end
    run(table.unpack(bodies))
    for i = 1, 20 do
      assert.equal(i % 2 == 1 or context.DeadlineExceeded, results[i])
    end
  end)
end)

describe("callbacks in a controller of cqueues", function()
  before_each(begin)
  after_each(finish)

  it("run as tasks, which may wait", function()
    local order = {}
    local ctx, cancel = context.with_cancel(background)
    ctx:after_func(function()
      order[#order + 1] = "begin"
      context.select(0.002)
      cqueues.sleep(0.002)
      order[#order + 1] = "end"
    end)
    ctx:after_func(function() order[#order + 1] = "second" end)
    run(function()
      context.select(0.001)
      cancel()
      order[#order + 1] = "cancelled"
    end)
    assert.same({ "cancelled", "begin", "second", "end" }, order)
  end)

  it("run in the order in which their contexts ended", function()
    local order, cancels = {}, {}
    for i = 1, 10 do
      local ctx, cancel = context.with_cancel(background)
      cancels[i] = cancel
      ctx:after_func(function() order[#order + 1] = 10 - i end)
      ctx:after_func(function() order[#order + 1] = 10 - i end)
    end
    run(function()
      for i = 10, 1, -1 do
        cancels[i]()
      end
    end)
    assert.same({ 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9 }, order)
  end)

  it("run that were due before the loop", function()
    local ran = 0
    local ctx, cancel = context.with_cancel(background)
    ctx:after_func(function() ran = ran + 1 end)
    cancel()
    ctx:after_func(function() ran = ran + 1 end)
    assert.equal(0, ran)
    assert.is_true((controller:loop()))
    assert.equal(2, ran)
  end)

  it("run that the last coroutine has made due", function()
    local ran
    run(function()
      local ctx <close> = context.with_timeout(background, 1000)
      ctx:after_func(function()
        context.select(0.001)
        ran = true
      end)
    end)
    assert.is_true(ran)
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
    run(function() cancel_one() end)
    assert.same({ "one", "one again", "two" }, order)
  end)

  it("that fail are reported, and the others run", function()
    local output = in_child [[
      warn("@on")
      lcqueues.attach(controller)
      local ctx, cancel = context.with_cancel(background)
      ctx:after_func(function() error("the problem") end)
      local all, all_over = context.with_cancel(background)
      ctx:after_func(function() context.select(0.002) all_over() error({}) end)
      ctx:after_func(function() print("another") end)
      controller:wrap(function() cancel() all:done():wait() print("coroutine") end)
      print((controller:loop()))
    ]]
    assert.matches("error in a callback: .-the problem", output)
    assert.matches("error in a callback: table", output)
    assert.matches("another\n.*coroutine\ntrue\n", output)
  end)

  it("may detach, and attach again", function()
    local order = {}
    local ctx, cancel = context.with_cancel(background)
    local second, second_over = context.with_cancel(background)
    ctx:after_func(function()
      lcqueues.detach()
      order[#order + 1] = "detached"
      assert(lcqueues.attach(controller))
      second:done():wait()
      order[#order + 1] = "waited"
    end)
    ctx:after_func(function()
      order[#order + 1] = "second"
      second_over()
    end)
    run(function() cancel() end)
    assert.same({ "detached", "second", "waited" }, order)
  end)
end)

describe("a process that uses cqueues", function()
  it("may end while coroutines wait and callbacks are due", function()
    for _, ending in ipairs { "", "os.exit(0, true)", "lcqueues.detach() os.exit(0, true)" } do
      local output = in_child([[
        lcqueues.attach(controller)
        local ctx, cancel = context.with_cancel(background)
        for _ = 1, 10 do
          controller:wrap(function()
            local child <close> = context.with_timeout(ctx, 1000)
            child:done():wait()
            print("never")
          end)
          coroutine.wrap(function() ctx:done():wait() print("never") end)()
        end
        ctx:after_func(function() print("never") end)
        assert(controller:step(0))
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

describe("an error of a coroutine in a controller of cqueues", function()
  before_each(begin)
  after_each(finish)

  it("comes out of loop as those of cqueues do, and the others go on", function()
    local order = {}
    local thread
    local ctx, cancel = context.with_cancel(background)
    controller:wrap(function()
      thread = coroutine.running()
      context.select(0.002)
      error("the problem")
    end)
    controller:wrap(function()
      ctx:done():wait()
      order[#order + 1] = "other"
    end)
    local ok, err, _, failed = controller:loop()
    assert.is_false(ok)
    assert.matches("cqueues_spec.lua:%d+: the problem", err)
    assert.equal(thread, failed)
    assert.same({}, order)
    cancel()
    assert.is_true((controller:loop()))
    assert.same({ "other" }, order)
  end)

  it("that is an object comes as it is", function()
    for _, object in ipairs { {}, context.Canceled, print } do
      controller:wrap(function()
        context.select(0.001)
        error(object)
      end)
      local ok, err = controller:loop()
      assert.is_false(ok)
      assert.equal(object, err)
    end
  end)

  it("in a nested one comes with its traceback", function()
    local log = {}
    local ctx, cancel = context.with_cancel(background)
    local later, cancel_later = context.with_cancel(background)
    local function culprit() error("the problem") end
    controller:wrap(function()
      coroutine.wrap(function()
        local _ <close> = setmetatable({}, { __close = function() log[#log + 1] = "closed" end })
        ctx:done():wait()
        culprit()
      end)()
      cancel()
      later:done():wait()
      log[#log + 1] = "its maker"
    end)
    local ok, err = controller:loop()
    assert.is_false(ok)
    assert.matches("cqueues_spec.lua:%d+: the problem", err)
    assert.matches("culprit", err)
    assert.same({ "closed" }, log)
    cancel_later()
    assert.is_true((controller:loop()))
    assert.same({ "closed", "its maker" }, log)
  end)

  it("in the midst of others that wait loses none of them", function()
    local ctx, cancel = context.with_cancel(background)
    local woken = 0
    for i = 1, 20 do
      controller:wrap(function()
        ctx:done():wait()
        woken = woken + 1
        if i % 5 == 0 then
          error("problem " .. i, 0)
        end
      end)
    end
    controller:wrap(function()
      context.select(0.002)
      cancel()
    end)
    local failures = 0
    while not controller:loop() do
      failures = failures + 1
    end
    assert.equal(4, failures)
    assert.equal(20, woken)
    assert.equal(0, controller:count())
  end)
end)

describe("waiters in a controller of cqueues", function()
  before_each(begin)
  after_each(finish)

  it("are resumed once, however their wait ends", function()
    local ctx, cancel = context.with_cancel(background)
    local resumed = { 0, 0, 0, 0, 0 }
    local threads = {}
    local function count(i)
      resumed[i] = resumed[i] + 1
    end
    local function nested(i, f)
      threads[i] = coroutine.create(f)
      assert(coroutine.resume(threads[i]))
    end
    run(function()
      nested(1, function() ctx:done():wait() count(1) coroutine.yield() count(1) end)
      nested(2, function() ctx:done():wait(0.002) count(2) coroutine.yield() count(2) end)
      nested(3, function() ctx:done():wait() count(3) end)
      nested(4, function()
        pcall(function()
          context.select(ctx:done(), 0.002)
          error("x")
        end)
        count(4)
      end)
      assert.is_true(coroutine.close(threads[3]))
      context.select(0.01)
      cancel()
      context.select(0.005)
    end, function()
      assert.is_true(ctx:done():wait())
      count(5)
      cqueues.sleep(0.005)
    end)
    assert.same({ 1, 1, 0, 1, 1 }, resumed)
    assert.equal(0, leaks.more("waiters"))
    assert.is_true(leaks.settles("timers", 0))
    cancel()
    assert.is_true((controller:loop()))
    assert.same({ 1, 1, 0, 1, 1 }, resumed)
  end)

  it("that are closed after they were woken, before their turn, are not resumed", function()
    local ctx, cancel = context.with_cancel(background)
    local log = {}
    local threads = {}
    for i = 1, 2 do
      threads[i] = coroutine.create(function()
        ctx:done():wait()
        log[#log + 1] = i
        coroutine.close(threads[3 - i])
      end)
      coroutine.resume(threads[i])
    end
    controller:wrap(function()
      context.select(0.002)
      cancel()
    end)
    local ok, err = controller:loop()
    assert.is_true(ok, tostring(err))
    assert.equal(1, #log)
  end)

  it("are let go when their controller is collected, and hold no other one's loop", function()
    assert.equal("0\ttrue\nover\n", (in_child [[
      lcqueues.attach(controller)
      local ctx, cancel = context.with_cancel(background)
      controller:wrap(function() ctx:done():wait() print("never") end)
      assert(controller:step(0))
      assert(context.stats().waiters >= 1)
      lcqueues.detach()
      controller = nil
      for _ = 1, 4 do collectgarbage() end
      local waiters = context.stats().waiters
      local other = cqueues.new()
      lcqueues.attach(other)
      print(waiters, (other:loop(0.2)))
      assert(other:empty())
      cancel()
      assert(other:loop(0.2))
      print("over")
    ]]))
  end)

  it("are let go when their controller is closed, and hold no other one's loop", function()
    assert.equal("0\ttrue\nover\n", (in_child [[
      lcqueues.attach(controller)
      local ctx, cancel = context.with_cancel(background)
      controller:wrap(function() ctx:done():wait() print("never") end)
      assert(controller:step(0))
      controller:close()
      lcqueues.detach()
      for _ = 1, 4 do collectgarbage() end
      local waiters = context.stats().waiters
      local other = cqueues.new()
      lcqueues.attach(other)
      print(waiters, (other:loop(0.2)))
      assert(other:empty())
      cancel()
      assert(other:loop(0.2))
      print("over")
    ]]))
  end)

  it("10,000 on 10,000 contexts: one cancel wakes all, without descriptors of their own", function()
    local parent, cancel = context.with_cancel(background)
    local woken = 0
    for _ = 1, 10000 do
      controller:wrap(function()
        local ctx <close> = context.with_cancel(parent)
        if ctx:done():wait() then
          woken = woken + 1
        end
      end)
    end
    local open = descriptors()
    assert(controller:step(0))
    assert.is_true(descriptors() <= open + 1)
    assert.is_true(leaks.more("waiters") >= 10000)
    controller:wrap(function() cancel() end)
    assert.is_true((controller:loop()))
    assert.equal(10000, woken)
    assert.is_true(descriptors() <= open + 1)
    assert.equal(0, leaks.more("waiters"))
  end)

  it("on many deadlines do not keep the processor busy", function()
    local woken = 0
    for _ = 1, 1000 do
      controller:wrap(function()
        background:with_timeout(0.2):done():wait()
        woken = woken + 1
      end)
    end
    assert(controller:step(0))
    local start = os.clock()
    assert(controller:loop())
    assert.equal(1000, woken)
    assert.is_true(os.clock() - start < 0.1 * slow)
  end)
end)
