local context = require "lcontext"
local loop = require "lcontext.loop"
local busy = require "spec.support.busy"
local child = require "spec.support.child"
local leaks = require "spec.support.leaks"
local runaways = require "spec.support.runaways"

local background = context.background()

local slow = os.getenv("LCONTEXT_SLOW") and 20 or 1 -- under valgrind

local function short(seconds)
  return (context.with_timeout(background, (seconds or 0.015) * slow))
end

local function forever()
  while true do end
end

-- For stop_inside.
local function stuck(begin)
  begin()
  while true do end
end

local function spin(seconds)
  local till = context.now() + seconds
  while context.now() < till do end
end

local function closing(f)
  return setmetatable({}, { __close = f })
end

-- What ctx:pcall(f, begin) returns when the deadline of ctx strikes after f has called begin(). On a busy machine it
-- may strike before, or before f is called: then everything again, with a new context, of make(seconds) if given.
local function stop_inside(f, make)
  local results = busy.in_time(function(seconds)
    local ctx = make and make(seconds) or context.with_timeout(background, seconds)
    local begun = false
    local results = table.pack(ctx:pcall(f, function() begun = true end))
    return begun and results
  end)
  return table.unpack(results, 1, results.n)
end

-- A coroutine that has yielded in a call of f, and the context of the call, which is over soon.
local function suspended_in(method, f)
  return busy.in_time(function(seconds)
    local ctx = context.with_timeout(background, seconds)
    local co = coroutine.create(function() return ctx[method](ctx, f) end)
    coroutine.resume(co)
    if coroutine.status(co) == "suspended" then
      return co, ctx
    end
  end)
end

-- For the rest of the test, a clean-up may take its time.
local function lengthen_grace()
  context.interrupt { grace = 60 }
  finally(function() context.interrupt { grace = 0.1 } end)
end

-- Nothing armed is left, the collector runs, and the next call is right.
local function check_clean()
  assert.is_nil((debug.gethook()))
  collectgarbage()
  local ctx <close> = context.with_timeout(background, 60)
  local results = table.pack(ctx:pcall(function(...)
    coroutine.wrap(function() end)()
    return ...
  end, 1, nil, "x", nil))
  assert.same({ true, 1, nil, "x", nil, n = 5 }, results)
  assert.is_nil((debug.gethook()))
end

local function check_stopped(err, ...)
  local ok, got, trace = ...
  assert.is_false(ok)
  assert.equal(err, got)
  assert.is_string(trace)
  assert.equal(3, select("#", ...))
  check_clean()
  return trace
end

local PRELUDE = [[
  local context = require "lcontext"
  local loop = require "lcontext.loop"
  local busy = require "spec.support.busy"
  local background = context.background()
  local function short(s) return (context.with_timeout(background, s or 0.015)) end
  local function forever() while true do end end
  local function spin(s) local till = context.now() + s while context.now() < till do end end
  local function closing(f) return setmetatable({}, { __close = f }) end
  -- What runs outside of all calls goes on, in coroutines too.
  local function check_free()
    assert(select("#", debug.gethook()) == 0 or debug.gethook() == nil, "a hook is left")
    spin(0.15)
    coroutine.wrap(function() spin(0.05) end)()
    collectgarbage()
    coroutine.wrap(function() spin(0.05) end)()
    assert(debug.gethook() == nil, "a hook is left")
    local live <close> = context.with_cancel(background)
    assert(select("#", live:pcall(function(...) return ... end, 1, nil)) == 3)
  end
]]

local function in_child(script)
  local output, status = child.run(PRELUDE .. script)
  assert.not_equal(124, status, "it hangs: " .. output)
  assert.equal(0, status, output)
  return output
end

describe("ctx:pcall", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("passes arguments and results through, nils and hundreds too", function()
    local ctx = short(60)
    assert.same({ true, n = 1 }, table.pack(ctx:pcall(function() end)))
    assert.same({ true, nil, n = 2 }, table.pack(ctx:pcall(function() return nil end)))
    assert.same({ true, nil, 2, nil, n = 4 }, table.pack(ctx:pcall(function(...) return ... end, nil, 2, nil)))
    local many = {}
    for i = 1, 900 do many[i] = i % 3 ~= 0 and i or nil end
    local results = table.pack(ctx:pcall(function(...) return ... end, table.unpack(many, 1, 900)))
    assert.equal(901, results.n)
    for i = 1, 900 do assert.equal(many[i], results[i + 1]) end
    assert.equal(5000, select("#", ctx:call(table.unpack, {}, 1, 5000)))
    assert.same({ true, 3 }, { ctx:pcall(math.abs, -3) })
    assert.same({ true, 4 }, { ctx:pcall(setmetatable({}, { __call = function(_, x) return x end }), 4) })
  end)

  it("passes a script's own errors through as they are, without a third result", function()
    local ctx = short(60)
    for _, err in ipairs { {}, 42, "text", false, print, context.DeadlineExceeded, context.Canceled } do
      local results = table.pack(ctx:pcall(error, err, 0))
      assert.equal(2, results.n)
      assert.is_false(results[1])
      assert.equal(err, results[2])
    end
    assert.same({ false, nil, n = 2 }, table.pack(ctx:pcall(error)))
    local ok, err = ctx:pcall(function() local x = nil; return x.y end)
    assert.is_false(ok)
    assert.matches("attempt to index a nil value", err)
    assert.same({ pcall(42) }, { ctx:pcall(42) })
  end)

  it("does not run f when its context has ended", function()
    local ctx, cancel = context.with_cancel(background)
    cancel()
    local ran
    assert.same({ false, context.Canceled, n = 2 }, table.pack(ctx:pcall(function() ran = true end)))
    local late = short(0)
    assert.same({ false, context.DeadlineExceeded, n = 2 }, table.pack(late:pcall(function() ran = true end)))
    assert.is_nil(ran)
  end)

  it("refuses what is no call", function()
    local ctx = short(60)
    assert.has_error(function() ctx:pcall() end)
    assert.has_error(function() ctx:call() end)
    assert.has_error(function() ctx.pcall() end)
    assert.has_error(function() ctx.pcall({}, print) end)
    assert.has_error(function() ctx.call(nil, print) end)
    local _, message = pcall(ctx.pcall, ctx)
    assert.matches("value expected", message)
    check_clean()
  end)

  it("returns no stop when f returns in time and its context ends after", function()
    local ctx = busy.in_time(function(seconds)
      local ctx = context.with_timeout(background, seconds)
      return ctx:pcall(function() end) and ctx
    end)
    while not ctx:err() do end
    spin(0.02)
    check_clean()
  end)

  it("reports a stop that f has swallowed", function()
    lengthen_grace()
    local swallowed
    check_stopped(context.DeadlineExceeded, stop_inside(function(begin)
      swallowed = { pcall(stuck, begin) }
      return "all is well"
    end))
    assert.same({ false, context.DeadlineExceeded }, swallowed)
    check_stopped(context.DeadlineExceeded, stop_inside(function(begin)
      pcall(stuck, begin)
      error("another", 0)
    end))
  end)

  it("says where the script was stuck, in inner coroutines too", function()
    local function stuck_here(begin) begin() while true do end end
    local trace = check_stopped(context.DeadlineExceeded, stop_inside(function(begin) stuck_here(begin) end))
    assert.matches("stop_spec.lua:%d+:", trace)
    assert.matches("stuck_here", trace)
    local function resumer_of_it(begin) coroutine.wrap(function() stuck_here(begin) end)() end
    trace = check_stopped(context.DeadlineExceeded, stop_inside(function(begin) resumer_of_it(begin) end))
    assert.matches("stuck_here", trace)
    assert.matches("resumer_of_it", trace)
    assert.is_true(trace:find("stuck_here", 1, true) < trace:find("resumer_of_it", 1, true))
  end)

  it("lets to-be-closed variables clean up, all of them", function()
    lengthen_grace()
    local closed
    check_stopped(context.DeadlineExceeded, stop_inside(function(begin)
      closed = {}
      local _ <close> = closing(function(_, err) closed[#closed + 1] = err end)
      local _ <close> = closing(function(_, err)
        for i = 1, 1000 do math.abs(i) end
        closed[#closed + 1] = err
      end)
      stuck(begin)
    end))
    assert.same({ context.DeadlineExceeded, context.DeadlineExceeded }, closed)
  end)

  it("lets a clean-up make guarded calls of its own within the grace", function()
    lengthen_grace()
    local log
    check_stopped(context.DeadlineExceeded, stop_inside(function(begin)
      log = {}
      local _ <close> = closing(function()
        local inner <close> = context.with_timeout(background, 60)
        local ok = inner:pcall(function() log[#log + 1] = "flushed" end)
        log[#log + 1] = tostring(ok)
        log[#log + 1] = "cleaned"
      end)
      stuck(begin)
    end))
    assert.same({ "flushed", "true", "cleaned" }, log)
  end)

  it("ends with cancel by the script itself, and by a callback", function()
    local ctx, cancel = context.with_cancel(background)
    local after
    check_stopped(context.Canceled, ctx:pcall(function()
      cancel()
      forever()
    end))
    local other, cancel_other = context.with_cancel(background)
    check_stopped(context.Canceled, other:pcall(function()
      after = short():after_func(function() cancel_other("why") end)
      while true do context.dispatch() end
    end))
    assert.is_not_nil(after)
    assert.equal("why", other:cause())
  end)

  it("ends with a context above it", function()
    check_stopped(context.DeadlineExceeded, stop_inside(stuck, function(seconds)
      return (context.with_timeout(background, seconds):with_value("k", 1):with_cancel())
    end))
  end)

  it("stops a wait", function()
    local never, cancel = context.with_cancel(background)
    local started = context.now()
    for _, wait in ipairs {
      function() never:done():wait() end, function() context.select(never:done(), 600) end,
      function() context.dispatch(600) end, function() while true do pcall(context.select, 600) end end,
    } do
      check_stopped(context.DeadlineExceeded, stop_inside(function(begin) begin() wait() end))
    end
    assert.is_true(context.now() - started < 300)
    cancel()
  end)

  it("interrupts a system call that blocks", function()
    local output = in_child [[
      local pipe = io.popen("echo $$; exec sleep 100 2>/dev/null")
      local pid = pipe:read("n")
      local started, begun = context.now(), false
      local ok, err
      repeat
        ok, err = short():pcall(function() begun = true pipe:read("a") while true do end end)
      until begun
      print(ok, err == context.DeadlineExceeded, context.now() - started < 50)
      os.execute("kill " .. pid)
    ]]
    assert.equal("false\ttrue\ttrue\n", output)
  end)
end)

describe("ctx:call", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("returns what f returns and raises what f raises", function()
    local ctx = short(60)
    assert.same({ 1, nil, 3, nil, n = 4 }, table.pack(ctx:call(function(...) return ... end, 1, nil, 3, nil)))
    assert.equal(0, select("#", ctx:call(function() end)))
    local object = {}
    local ok, err = pcall(ctx.call, ctx, error, object)
    assert.is_false(ok)
    assert.equal(object, err)
    check_clean()
  end)

  it("raises the context's error", function()
    local ok, err = pcall(function() short():call(forever) end)
    assert.same({ false, context.DeadlineExceeded }, { ok, err })
    local ctx, cancel = context.with_cancel(background)
    ok, err = pcall(ctx.call, ctx, function() cancel() forever() end)
    assert.same({ false, context.Canceled }, { ok, err })
    ok, err = pcall(ctx.call, ctx, error)
    assert.same({ false, context.Canceled }, { ok, err })
    check_clean()
  end)

  it("raises it also when f swallows it or raises another", function()
    for _, f in ipairs {
      function() pcall(forever) return 1 end, function() pcall(forever) error("another") end,
    } do
      local ok, err = pcall(function() short():call(f) end)
      assert.same({ false, context.DeadlineExceeded }, { ok, err })
      check_clean()
    end
  end)

  it("leaves nothing behind after a hard stop", function()
    local output = in_child [[
      local ctx = short()
      print(pcall(ctx.call, ctx, function() pcall(forever) forever() end))
      check_free()
      print("free")
    ]]
    assert.equal("false\tcontext deadline exceeded\nfree\n", output)
  end)

  it("that was stopped in a coroutine, dead since, stops nothing else", function()
    local output = in_child [[
      local co = coroutine.create(function() short():call(forever) end)
      print(coroutine.resume(co))
      check_free()
      print(debug.gethook(co) == nil, coroutine.status(co))
    ]]
    assert.equal("false\tcontext deadline exceeded\ntrue\tdead\n", output)
  end)

  it("that has failed in a coroutine, dead since, stops nothing else", function()
    local output = in_child [[
      local co, ctx, ok, err = busy.in_time(function(seconds)
        local ctx = short(seconds)
        local co = coroutine.create(function() ctx:call(error, "x") end)
        local ok, err = coroutine.resume(co)
        if err ~= context.DeadlineExceeded then return co, ctx, ok, err end
      end)
      print(ok, err)
      while not ctx:err() do end
      spin(0.03)
      check_free()
      print(coroutine.status(co))
    ]]
    assert.equal("false\tx\ndead\n", output)
  end)
end)

describe("calls in calls", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("stop with the inner context alone", function()
    local outer = short(60)
    local results = table.pack(outer:pcall(function()
      local ok, err = stop_inside(stuck)
      spin(0.02)
      return ok, err, "went on"
    end))
    assert.same({ true, false, context.DeadlineExceeded, "went on", n = 4 }, results)
    check_clean()
  end)

  it("stop both with the outer context", function()
    local went_on
    check_stopped(context.DeadlineExceeded, stop_inside(function(begin)
      short(60):pcall(function() short(60):pcall(stuck, begin) went_on = true end)
      went_on = true
    end))
    assert.is_nil(went_on)
    local outer, cancel = context.with_cancel(background)
    check_stopped(context.Canceled, outer:pcall(function()
      short(60):pcall(function() cancel() forever() end)
      went_on = true
    end))
    assert.is_nil(went_on)
  end)

  it("stop with both at once, three deep", function()
    for _ = 1, 10 do
      local ctx
      check_stopped(context.DeadlineExceeded, stop_inside(function(begin)
        while true do ctx:pcall(function() ctx:with_cancel():pcall(stuck, begin) end) end
      end, function(seconds)
        ctx = context.with_timeout(background, seconds)
        return ctx
      end))
    end
  end)

  it("stop with the inner one first, then the outer one", function()
    local log = {}
    local outer, cancel = context.with_cancel(background)
    check_stopped(context.Canceled, outer:pcall(function()
      log[1] = { stop_inside(stuck) }
      pcall(function() short(0.001):call(forever) end)
      cancel()
      forever()
    end))
    assert.equal(context.DeadlineExceeded, log[1][2])
  end)

  it("mix pcall and call", function()
    check_stopped(context.DeadlineExceeded, stop_inside(function(begin)
      short(60):call(function() pcall(stuck, begin) end)
      forever()
    end))
    local ok, err = pcall(function() short():call(function() short(60):pcall(forever) end) end)
    assert.same({ false, context.DeadlineExceeded }, { ok, err })
    check_clean()
  end)
end)

describe("a call that yields", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("is resumed by hand, and returns", function()
    local ctx = short(60)
    local co = coroutine.wrap(function(...) return ctx:pcall(function(...)
      local a = coroutine.yield(...)
      local b, c = ctx:call(coroutine.yield, a)
      return b, c
    end, ...) end)
    assert.equal(1, co(1))
    assert.equal(2, co(2))
    assert.same({ true, nil, 4 }, { co(nil, 4) })
    co = coroutine.wrap(function() return ctx:pcall(function() coroutine.yield() error("late", 0) end) end)
    co()
    assert.same({ false, "late" }, { co() })
    check_clean()
  end)

  it("is stopped when it is resumed, and what runs meanwhile is not", function()
    local co, ctx = suspended_in("pcall", function() coroutine.yield() forever() end)
    while not ctx:err() do end
    spin(0.05)
    coroutine.wrap(function() spin(0.02) end)()
    local results = table.pack(coroutine.resume(co))
    assert.equal(4, results.n)
    assert.is_false(results[2])
    assert.equal(context.DeadlineExceeded, results[3])
    assert.equal("dead", coroutine.status(co))
    check_clean()
    co, ctx = suspended_in("pcall", coroutine.yield)
    ctx:done():wait()
    assert.is_true(coroutine.resume(co))
    check_clean()
  end)

  it("is stopped when it is resumed from another call", function()
    local live = short(60)
    local co = suspended_in("pcall", function() coroutine.yield() forever() end)
    local results = table.pack(live:pcall(function()
      local results = table.pack(select(2, coroutine.resume(co)))
      spin(0.02)
      return results
    end))
    assert.is_true(results[1])
    assert.equal(context.DeadlineExceeded, results[2][2])
    check_clean()
  end)

  it("is stopped with the call that it is resumed from", function()
    local ctx = short(60)
    local co
    check_stopped(context.DeadlineExceeded, stop_inside(function(begin) co(begin) end, function(seconds)
      co = coroutine.wrap(function() return ctx:pcall(function() stuck(coroutine.yield()) end) end)
      co()
      return (context.with_timeout(background, seconds))
    end))
  end)

  it("can be closed before its context ends", function()
    local ctx = short(60)
    local closed
    local co = coroutine.create(function()
      ctx:pcall(function() local _ <close> = closing(function() closed = true end) coroutine.yield() end)
    end)
    coroutine.resume(co)
    assert.is_true(coroutine.close(co))
    assert.is_true(closed)
    check_clean()
  end)

  it("can be closed after its context has ended, and stops nothing else", function()
    for _, method in ipairs { "pcall", "call" } do
      local output = in_child(([[
        local ctx = short()
        local co = coroutine.create(function() ctx:%s(coroutine.yield) end)
        coroutine.resume(co)
        ctx:done():wait()
        spin(0.03)
        coroutine.close(co)
        check_free()
        print(context.stats().callbacks)
      ]]):format(method))
      assert.is_string(output)
    end
  end)

  it("can be collected", function()
    for i = 1, 20 do
      local ctx = short(60)
      local co = coroutine.create(function() return ctx:pcall(coroutine.yield) end)
      coroutine.resume(co)
      local ended
      co, ended = suspended_in("call", coroutine.yield) -- luacheck: ignore 311
      if i > 10 then ended:done():wait() end
    end
    collectgarbage()
    collectgarbage()
    check_clean()
  end)

  it("may be open when the state is closed", function()
    assert.equal("done\n", in_child [[
      for _, seconds in ipairs { 0.01, 60 } do
        for _, method in ipairs { "pcall", "call" } do
          local ctx = short(seconds)
          _G[method .. seconds] = coroutine.create(function() ctx[method](ctx, coroutine.yield) end)
          coroutine.resume(_G[method .. seconds])
        end
      end
      spin(0.05)
      print "done"
    ]])
    in_child [[ short():pcall(function() pcall(forever) os.exit(0, true) end) ]]
    in_child [[ short(60):pcall(function() coroutine.wrap(function() os.exit(0, true) end)() end) ]]
  end)
end)

describe("coroutines that outlive their call", function()
  before_each(leaks.before)
  after_each(leaks.after)

  local function outlive(ctx, f)
    local co = coroutine.create(function()
      while true do coroutine.yield() pcall(spin, 0.002) end
    end)
    local ok = ctx:pcall(function()
      local inner = coroutine.create(function() while true do coroutine.yield() end end)
      for _ = 1, 3 do coroutine.resume(co) coroutine.resume(inner) end
      f(inner)
    end)
    return ok, co
  end

  it("are not left armed", function()
    local kept
    local co = busy.in_time(function(seconds)
      kept = nil
      local ok, co = outlive((context.with_timeout(background, seconds)), function(inner)
        kept = inner
        while true do coroutine.resume(inner) end
      end)
      assert.is_false(ok)
      return kept and co
    end)
    assert.is_nil((debug.gethook(co)))
    for _ = 1, 3 do
      assert.is_true(coroutine.resume(co))
      coroutine.resume(kept)
    end
    assert.is_nil((debug.gethook(co)))
    assert.is_nil((debug.gethook(kept)))
    check_clean()
  end)

  it("are not left armed in count mode", function()
    context.interrupt { mode = "count" }
    finally(function() context.interrupt { mode = "signal" } end)
    local kept
    local ok, co = outlive(short(60), function(inner) kept = inner end)
    assert.is_true(ok)
    assert.is_nil((debug.gethook(co)))
    assert.is_nil((debug.gethook(kept)))
    check_clean()
  end)
end)

describe("a debugger's hook", function()
  before_each(leaks.before)
  after_each(function()
    debug.sethook()
    leaks.after()
  end)

  for _, event in ipairs { { "line", "l", 0 }, { "count", "", 100 }, { "call", "cr", 0 } } do
    local name, mask, count = table.unpack(event)

    it("for " .. name .. " events is there after, stopped or not", function()
      local hits = 0
      local function hook() hits = hits + 1 end
      debug.sethook(hook, mask, count)
      short(60):pcall(function() for i = 1, 1000 do math.abs(i) end end)
      local f, m, c = debug.gethook()
      local after_plain = hits
      local ok, err = stop_inside(stuck)
      local f2, m2, c2 = debug.gethook()
      local before = hits
      for i = 1, 1000 do
        math.abs(i)
      end
      debug.sethook()
      assert.same({ hook, mask, count }, { f, m, c })
      assert.same({ hook, mask, count }, { f2, m2, c2 })
      assert.is_true(after_plain > 0)
      assert.is_true(hits > before)
      assert.same({ false, context.DeadlineExceeded }, { ok, err })
    end)

    it("for " .. name .. " events of a coroutine is there after a stop in it", function()
      lengthen_grace()
      local hits, co
      local function hook() hits = hits + 1 end
      local ok, err = stop_inside(function(begin) coroutine.resume(co, begin) end, function(seconds)
        hits = 0
        co = coroutine.create(function(begin)
          while hits == 0 do math.abs(1) end
          while true do pcall(stuck, begin) coroutine.yield() end
        end)
        debug.sethook(co, hook, mask, count)
        return (context.with_timeout(background, seconds))
      end)
      local f, m, c = debug.gethook(co)
      assert.same({ false, context.DeadlineExceeded }, { ok, err })
      assert.same({ hook, mask, count }, { f, m, c })
      assert.is_true(hits > 0)
      check_clean()
    end)
  end

  it("that is set inside a call stays, when the call ends in time", function()
    local function hook() end
    short(60):pcall(function() debug.sethook(hook, "l") end)
    assert.equal(hook, (debug.gethook()))
    debug.sethook()
  end)

  it("runs while a script is being stopped, in its clean-up", function()
    lengthen_grace()
    local lines = 0
    debug.sethook(function() lines = lines + 1 end, "l")
    local during
    stop_inside(function(begin)
      local _ <close> = closing(function()
        local before = lines
        local _ = 1
        _ = 2
        during = lines - before
      end)
      stuck(begin)
    end)
    debug.sethook()
    assert.is_true(during >= 2)
  end)

  it("is not touched in a call that ends in time, and comes back in count mode", function()
    local function hook() end
    debug.sethook(hook, "l")
    local inside
    short(60):pcall(function() inside = debug.gethook() end)
    context.interrupt { mode = "count" }
    short(60):pcall(function() end)
    local ok = stop_inside(stuck)
    local after, mask = debug.gethook()
    debug.sethook()
    context.interrupt { mode = "signal" }
    assert.equal(hook, inside)
    assert.is_false(ok)
    assert.same({ hook, "l" }, { after, mask })
  end)
end)

describe("under the loop", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("a call that waits is stopped, and the other tasks go on", function()
    local results, ticks = nil, 0
    loop.run(function()
      loop.spawn(function() for _ = 1, 10 do context.select(0.002) ticks = ticks + 1 end end)
      local never <close> = context.with_cancel(background)
      results = table.pack(stop_inside(function(begin)
        begin()
        while true do never:done():wait(0.01) end -- it is stopped when the loop resumes it
      end))
    end)
    assert.equal(10, ticks)
    assert.equal(context.DeadlineExceeded, results[2])
    check_clean()
  end)

  it("a call that is stopped in one task leaves the others alone", function()
    local log = {}
    loop.run(function()
      for i = 1, 5 do
        loop.spawn(function()
          log[i] = { stop_inside(function(begin) context.select(0.001) stuck(begin) end) }
          spin(0.01)
          context.select(0.001)
        end)
      end
      loop.spawn(function() for _ = 1, 20 do context.select(0.002) spin(0.001) end log.other = true end)
    end)
    for i = 1, 5 do assert.equal(context.DeadlineExceeded, log[i][2]) end
    assert.is_true(log.other)
    check_clean()
  end)

  it("a task that fails with a stop leaves nothing behind", function()
    assert.equal("false\n", in_child [[
      print((pcall(loop.run, function() short():call(forever) end)))
      check_free()
    ]])
  end)
end)

describe("interrupt", function()
  local before

  before_each(function() before = context.interrupt() end)
  after_each(function() context.interrupt(before) end)

  it("returns the settings", function()
    assert.equal("signal", before.mode)
    assert.is_true(math.type(before.signal) == "integer")
    assert.is_true(before.count >= 1)
    assert.equal(0.1, before.grace)
    assert.same(before, context.interrupt {})
    assert.same(before, context.interrupt(nil))
    local now = context.interrupt { mode = "count", count = 77, grace = 0.5 }
    assert.same({ mode = "count", count = 77, grace = 0.5, signal = before.signal }, now)
    assert.same(now, context.interrupt())
  end)

  it("refuses what it does not know, and changes nothing then", function()
    for _, options in ipairs {
      { mode = "x" }, { mode = 1 }, { mode = true }, { signal = 0 }, { signal = -1 }, { signal = 9 }, { signal = 19 },
      { signal = 1000 }, { signal = 2^40 }, { signal = 1.5 }, { signal = "x" }, { count = 0 }, { count = -5 },
      { count = 1.5 }, { count = math.maxinteger }, { count = "x" }, { grace = -1 }, { grace = 0 / 0 }, { grace = "x" },
      { grace = {} }, { mode = "count", count = 0 }, { mode = "count", grace = -1 },
    } do
      assert.has_error(function() context.interrupt(options) end)
      assert.same(before, context.interrupt())
    end
    assert.has_error(function() context.interrupt("count") end)
    assert.has_error(function() context.interrupt(1) end)
  end)

  it("takes another signal, and a grace of nothing or for ever", function()
    context.interrupt { signal = 12 }
    check_stopped(context.DeadlineExceeded, stop_inside(stuck))
    context.interrupt { signal = before.signal, grace = 0 }
    check_stopped(context.DeadlineExceeded, stop_inside(function(begin) while true do pcall(stuck, begin) end end))
    context.interrupt { grace = math.huge }
    check_stopped(context.DeadlineExceeded, stop_inside(stuck))
  end)

  it("changed inside a call leaves that call right", function()
    for _, modes in ipairs { { "signal", "count" }, { "count", "signal" } } do
      assert.equal("false\tcontext deadline exceeded\n", in_child(([[
        context.interrupt { mode = %q }
        local ok, err = short():pcall(function() context.interrupt { mode = %q } forever() end)
        print(ok, err)
        check_free()
      ]]):format(table.unpack(modes))))
    end
  end)

  it("in count mode covers a wait as well, also one that begins after the end", function()
    assert.equal("false\ttrue\ttrue\nfalse\ttrue\ttrue\n", in_child [[
      context.interrupt { mode = "count" }
      local never = context.with_cancel(background)
      for _, seconds in ipairs { 0, 0.1 } do
        local started = context.now()
        local ok, err = short():pcall(function()
          os.execute("sleep " .. seconds)
          never:done():wait(60)
        end)
        print(ok, err == context.DeadlineExceeded, context.now() - started < 30)
      end
    ]])
  end)
end)

-- All runaways of one mode in one process; a line for each.
local function run_all(mode)
  local output, status = child.run(PRELUDE .. ([[
    io.stdout:setvbuf("no")
    context.interrupt { mode = %q, grace = 0.03 }
    for _, runaway in ipairs(require "spec.support.runaways") do
      if runaway.signal_only and %q == "count" then goto continue end
      do
      local results, hook, took
      repeat
        local ctx, started = short(0.01), context.now()
        local begun = false
        results = table.pack(ctx:pcall(function(...) begun = true return runaway.run(...) end, context))
        hook, took = debug.gethook(), context.now() - started
      until begun -- on a busy machine the deadline may be over before
      local problem = results[1] ~= false and "not stopped"
        or results[2] ~= context.DeadlineExceeded and "other error: " .. tostring(results[2])
        or type(results[3]) ~= "string" and "no traceback"
        or hook == "external hook" and "a hook is left" -- its own, set by itself, may be
        or took > 30 and "late: " .. took
      debug.sethook()
      collectgarbage("restart")
      local live <close> = context.with_cancel(background)
      if select("#", live:pcall(function(...) coroutine.wrap(spin)(0.001) return ... end, 1, nil)) ~= 3 then
        problem = problem or "the next call is wrong"
      end
      print(runaway.name .. "\t" .. (problem or "ok"))
      end
      ::continue::
    end
    collectgarbage()
    print("(the end)\tok")
  ]]):format(mode, mode))
  local lines = { status = status }
  for name, outcome in output:gmatch("([^\t\n]*)\t([^\n]*)") do lines[name] = outcome end
  lines.output = output
  return lines
end

for _, mode in ipairs { "signal", "count" } do
  describe("in " .. mode .. " mode", function()
    local lines

    local function outcome(name)
      lines = lines or run_all(mode)
      return lines[name] or ("not reached (status %s): %s"):format(lines.status, lines.output:sub(-300))
    end

    for _, runaway in ipairs(runaways) do
      if mode == "signal" or not runaway.signal_only then
        it("stops " .. runaway.name, function()
          assert.equal("ok", outcome(runaway.name))
        end)
      end
    end

    it("is all right after all that", function()
      assert.equal("ok", outcome("(the end)"))
    end)
  end)
end

describe("a stop", function()
  it("runs no finalizers in its hook, where nothing could stop them", function()
    local in_hook = 0
    local meta = { __gc = function()
      if debug.getinfo(1, "n").namewhat == "hook" then
        in_hook = in_hook + 1
      end
    end }
    collectgarbage("incremental", 0, 200, 5) -- a step of the collector with every allocation
    for _ = 1, 50 do
      short(0.001):pcall(function() while true do setmetatable({}, meta) end end)
    end
    collectgarbage("incremental", 200, 100, 13)
    assert.equal(0, in_hook)
    check_clean()
  end)
end)

describe("at every point in time", function()
  for _, mode in ipairs { "signal", "count" } do
    it("a script that uses everything can be stopped, in " .. mode .. " mode", function()
      local seed = os.time()
      local output = in_child(([[
        local seed = %d
        print("seed " .. seed)
        math.randomseed(seed)
        context.interrupt { mode = %q, count = 100, grace = 0.02 }
        local kept = setmetatable({}, { __mode = "v" })
        local function script()
          local ctx <close>, cancel = context.with_cancel(background)
          local child = ctx:with_timeout(60):with_value("k", {})
          local stop = child:after_func(function() child:value("k") end)
          local co = coroutine.wrap(function(a)
            local _ <close> = closing(function() kept[#kept + 1] = {} end)
            while true do a = coroutine.yield(a, tostring(child)) end
          end)
          for i = 1, 5 do co(i) end
          pcall(function() child:call(function() error({}) end) end)
          child:pcall(function() coroutine.wrap(function() return child:pcall(string.rep, "x", 100) end)() end)
          table.sort({ 3, 1, 2 }, function(x, y) return x < y end)
          local s = ("abc"):rep(10):gsub("b", function(c) return c .. c end)
          stop()
          local later <close> = context.with_timeout(child, 0.0001)
          later:after_func(function() kept[#kept + 1] = s end)
          later:done():wait(0.0002)
          context.select(child:done(), 0.0001)
          context.dispatch()
          xpcall(error, debug.traceback, s)
          local open = coroutine.create(function() child:pcall(coroutine.yield) end)
          coroutine.resume(open)
          if math.random(3) == 1 then coroutine.close(open) end
          cancel()
          context.dispatch()
          if math.random(4) == 1 then collectgarbage("step") end
        end
        collectgarbage()
        local at_first = context.stats()
        local till, calls, stopped = context.now() + 2.5, 0, 0
        while context.now() < till or calls < 1000 do
          local ctx = context.with_timeout(background, math.random() * 0.002)
          local ok, err = ctx:pcall(function() while true do script() end end)
          calls = calls + 1
          assert(not ok and err == context.DeadlineExceeded, tostring(err))
          assert(debug.gethook() == nil, "a hook is left")
          local live <close> = context.with_cancel(background)
          local function echo(...) return coroutine.wrap(function(...) return ... end)(...) end
          local results = table.pack(live:pcall(echo, calls, nil))
          assert(results.n == 3 and results[1] == true and results[2] == calls and results[3] == nil, "next call")
        end
        spin(0.05)
        busy.settles(function()
          for _ = 1, 3 do collectgarbage() context.dispatch() end
          for name, count in pairs(context.stats()) do
            if count ~= at_first[name] then return false end
          end
          return true
        end)
        for name, count in pairs(context.stats()) do
          assert(count == at_first[name], ("%%s: %%d before, %%d after"):format(name, at_first[name], count))
        end
        print("calls " .. calls)
      ]]):format(seed, mode))
      assert.matches("calls %d+", output)
    end)
  end
end)

describe("the drop-in functions", function()
  it("let errors, results and tracebacks be as Lua's own", function()
    assert.same({ true, 1, nil }, { xpcall(function(...) return ... end, print, 1, nil) })
    assert.same({ false, "handled x" }, { xpcall(error, function(e) return "handled " .. e end, "x") })
    assert.has_error(function() xpcall(print) end)
    assert.has_error(function() coroutine.resume(1) end)
    assert.has_error(function() coroutine.wrap({}) end)
    assert.same({ false, "cannot resume dead coroutine" },
      { coroutine.resume(coroutine.create(setmetatable({}, {}) and print)) and false, "cannot resume dead coroutine" })
    local co = coroutine.create(function() end)
    coroutine.resume(co)
    assert.same({ false, "cannot resume dead coroutine" }, { coroutine.resume(co) })
    assert.is_true(coroutine.close(co))
  end)

  it("call xpcall's handler without a frame between it and the error, outside of guarded calls", function()
    local trace = select(2, xpcall(function() error("x") end, function(e) return debug.traceback(e) end))
    assert.not_matches("tail call", trace)
  end)
end)
