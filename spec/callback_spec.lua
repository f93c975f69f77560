local context = require "lcontext"
local busy = require "spec.support.busy"
local child_process = require "spec.support.child"
local leaks = require "spec.support.leaks"
local socket = require "socket"

local background = context.background()

-- Whether the descriptor is readable within `seconds`.
local function readable(fd, seconds)
  local object = { getfd = function() return fd end, dirty = function() return false end }
  return #socket.select({ object }, nil, seconds or 0) > 0
end

describe("after_func", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("runs f once, after the end, before cancel returns", function()
    local ctx, cancel = context.with_cancel(background)
    local seen = {}
    context.after_func(ctx, function(...)
      seen[#seen + 1] = { select("#", ...), ctx:err(), ctx:done():closed() }
    end)
    context.dispatch()
    assert.same({}, seen)
    cancel()
    cancel()
    context.dispatch()
    assert.same({ { 0, context.Canceled, true } }, seen)
  end)

  it("runs f before the <close> of a context is over", function()
    local ran = false
    do
      local ctx <close> = context.with_cancel(background)
      context.after_func(ctx, function() ran = true end)
    end
    assert.is_true(ran)
  end)

  it("runs f after a deadline, at a dispatch point", function()
    local ctx = context.with_timeout(background, 0.01)
    local err
    context.after_func(ctx, function() err = ctx:err() end)
    assert.equal(1, context.dispatch(10))
    assert.equal(context.DeadlineExceeded, err)
  end)

  it("runs f on a context that has ended at the next dispatch point", function()
    local ctx, cancel = context.with_cancel(background)
    cancel()
    local ran = false
    context.after_func(ctx, function() ran = true end)
    assert.is_false(ran)
    assert.equal(1, context.dispatch())
    assert.is_true(ran)
    assert.equal(0, context.dispatch())
  end)

  it("is a method and works on a context with values", function()
    local ctx, cancel = context.with_cancel(background)
    local ran = 0
    ctx:with_value("k", 1):after_func(function() ran = ran + 1 end)
    collectgarbage()
    cancel()
    assert.equal(1, ran)
  end)

  it("takes anything that can be called", function()
    local ctx, cancel = context.with_cancel(background)
    local ran = 0
    context.after_func(ctx, setmetatable({}, { __call = function() ran = ran + 1 end }))
    context.after_func(ctx, coroutine.wrap(function() ran = ran + 1 end))
    cancel()
    assert.equal(2, ran)
  end)

  it("runs callbacks of one context in the order of registration", function()
    local ctx, cancel = context.with_cancel(background)
    local order, expected = {}, {}
    for i = 1, 100 do
      context.after_func(i % 2 == 0 and ctx or ctx:with_value("k", i), function() order[#order + 1] = i end)
      expected[i] = i
    end
    cancel()
    assert.same(expected, order)
  end)

  it("runs the callbacks of parents first, then of children as they were made", function()
    local order = {}
    local function note(name)
      return function() order[#order + 1] = name end
    end
    local parent, cancel = context.with_cancel(background)
    local one = parent:with_cancel()
    context.after_func(one, note "one")
    local two = parent:with_cancel()
    local one_below = one:with_cancel()
    context.after_func(one_below, note "one below")
    context.after_func(two, note "two")
    context.after_func(parent, note "parent")
    cancel()
    assert.equal("parent", order[1])
    local place = {}
    for i, name in ipairs(order) do
      place[name] = i
    end
    assert.equal(4, #order)
    assert.is_true(place["one"] < place["two"])
    assert.is_true(place["one"] < place["one below"])
  end)

  it("runs callbacks in the order in which their contexts ended", function()
    local order = {}
    local a, cancel_a = context.with_cancel(background)
    local b, cancel_b = context.with_cancel(background)
    local first, cancel_first = context.with_cancel(background)
    context.after_func(a, function() order[#order + 1] = "a" end)
    context.after_func(b, function() order[#order + 1] = "b" end)
    context.after_func(first, function() -- nothing runs while this does
      cancel_b()
      cancel_a()
      assert.same({}, order)
      order[#order + 1] = "first"
    end)
    cancel_first()
    assert.same({ "first", "b", "a" }, order)
  end)

  it("runs callbacks of deadlines in the order of the deadlines", function()
    local order = busy.in_time(function(seconds)
      local order = {}
      local first = context.now() + seconds
      for i = 10, 1, -1 do
        local ctx = context.with_deadline(background, first + i / 500)
        ctx:after_func(function() order[#order + 1] = i end)
      end
      local all_made = context.now() < first
      while #order < 10 do
        context.dispatch(5)
      end
      return all_made and order
    end)
    assert.same({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }, order)
  end)

  it("queues what a callback cancels behind itself", function()
    local order = {}
    local outer, cancel_outer = context.with_cancel(background)
    local inner, cancel_inner = context.with_cancel(background)
    context.after_func(inner, function() order[#order + 1] = "inner" end)
    context.after_func(outer, function()
      order[#order + 1] = "begin"
      cancel_inner()
      assert.equal(context.Canceled, inner:err())
      order[#order + 1] = "end"
    end)
    context.after_func(outer, function() order[#order + 1] = "second" end)
    cancel_outer()
    assert.same({ "begin", "end", "second", "inner" }, order)
  end)

  it("queues what a callback registers on an ended context", function()
    local order = {}
    local ctx, cancel = context.with_cancel(background)
    local function again(n)
      return function()
        order[#order + 1] = n
        if n < 100 then
          context.after_func(ctx, again(n + 1))
        end
        assert.equal(n, #order)
      end
    end
    context.after_func(ctx, again(1))
    cancel()
    assert.equal(100, #order)
  end)

  it("lets a callback of the parent cancel a child, and the other way round", function()
    local parent, cancel = context.with_cancel(background)
    local child, cancel_child = parent:with_cancel()
    local ran = 0
    context.after_func(parent, function() cancel_child() ran = ran + 1 end)
    context.after_func(child, function() cancel() ran = ran + 1 end)
    cancel()
    assert.equal(2, ran)
  end)

  it("does nothing in dispatch() inside a callback", function()
    local ctx, cancel = context.with_cancel(background)
    local counts, order = {}, {}
    context.after_func(ctx, function()
      counts[1] = context.dispatch()
      counts[2] = context.dispatch(0.001)
      order[#order + 1] = 1
    end)
    context.after_func(ctx, function() order[#order + 1] = 2 end)
    cancel()
    assert.same({ 0, 0 }, counts)
    assert.same({ 1, 2 }, order)
  end)

  it("runs what lies behind a callback that waits for it", function()
    local order = {}
    local outer, cancel_outer = context.with_cancel(background)
    local other, cancel_other = context.with_cancel(background)
    context.after_func(outer, function()
      order[#order + 1] = "waits"
      assert(other:done():wait(60))
      order[#order + 1] = "woken"
    end)
    context.after_func(outer, function()
      order[#order + 1] = "cancels"
      cancel_other()
    end)
    cancel_outer()
    assert.same({ "waits", "cancels", "woken" }, order)
  end)

  it("never runs what never ends", function()
    local ran = false
    local stop = context.after_func(background, function() ran = true end)
    context.dispatch()
    collectgarbage()
    assert.is_true(stop())
    assert.is_false(stop())
    assert.is_false(ran)
    local parent, cancel = context.with_cancel(background)
    local detached = context.after_func(parent:without_cancel(), function() ran = true end)
    cancel()
    context.dispatch()
    assert.is_false(ran)
    assert.is_true(detached())
  end)

  it("runs callbacks in the coroutine that dispatches", function()
    local ctx, cancel = context.with_cancel(background)
    local seen
    context.after_func(ctx, function() seen = coroutine.running() end)
    local co = coroutine.create(function() cancel() end)
    assert(coroutine.resume(co))
    assert.truthy(seen)
  end)

  it("runs 10,000 callbacks of 10,000 contexts", function()
    local parent, cancel = context.with_cancel(background)
    local count = 0
    for _ = 1, 10000 do
      context.after_func(parent:with_cancel(), function() count = count + 1 end)
    end
    collectgarbage()
    cancel()
    assert.equal(10000, count)
    assert.equal(0, leaks.more("callbacks"))
  end)
end)

describe("stop", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("is true if it kept f from running, once", function()
    local ctx, cancel = context.with_cancel(background)
    local ran = false
    local stop = context.after_func(ctx, function() ran = true end)
    assert.is_true(stop())
    assert.is_false(stop())
    cancel()
    context.dispatch()
    assert.is_false(ran)
    assert.is_false(stop())
  end)

  it("is false after f ran, and in f", function()
    local ctx, cancel = context.with_cancel(background)
    local stop, inside
    stop = context.after_func(ctx, function() inside = stop() end)
    cancel()
    assert.is_false(inside)
    assert.is_false(stop())
  end)

  it("is true for what is due but has not run", function()
    local ctx, cancel = context.with_cancel(background)
    cancel()
    local ran = false
    local stop = context.after_func(ctx, function() ran = true end)
    assert.is_true(stop())
    assert.is_false(stop())
    assert.equal(0, context.dispatch())
    assert.is_false(ran)
  end)

  it("stops the one behind, from a callback", function()
    local ctx, cancel = context.with_cancel(background)
    local ran, stop = {}, nil
    context.after_func(ctx, function() ran[#ran + 1] = stop() end)
    stop = context.after_func(ctx, function() ran[#ran + 1] = "second" end)
    context.after_func(ctx, function() ran[#ran + 1] = "third" end)
    cancel()
    assert.same({ true, "third" }, ran)
  end)

  it("is closable", function()
    local ctx, cancel = context.with_cancel(background)
    local ran = false
    do
      local stop <close> = context.after_func(ctx, function() ran = true end)
      assert.equal(1, leaks.more("callbacks"))
      assert.truthy(stop)
    end
    assert.equal(0, leaks.more("callbacks"))
    cancel()
    assert.is_false(ran)
    do
      local late <close> = context.after_func(ctx, function() ran = true end)
      assert.truthy(late)
    end
    context.dispatch()
    assert.is_false(ran)
  end)

  it("frees f", function()
    local weak = setmetatable({}, { __mode = "v" })
    local ctx = background:with_cancel()
    local stop
    do
      local f = function() return weak end
      weak[1] = f
      stop = context.after_func(ctx, f)
    end
    collectgarbage()
    assert.is_truthy(weak[1])
    stop()
    collectgarbage()
    assert.is_nil(weak[1])
  end)

  it("does not stop by being dropped", function()
    local ctx, cancel = context.with_cancel(background)
    local ran = false
    context.after_func(ctx, function() ran = true end)
    collectgarbage()
    collectgarbage()
    cancel()
    assert.is_true(ran)
  end)

  it("can be called in any order among many", function()
    math.randomseed(11)
    local ctx, cancel = context.with_cancel(background)
    local stops, ran = {}, {}
    for i = 1, 500 do
      stops[i] = context.after_func(ctx, function() ran[i] = true end)
    end
    local stopped = {}
    for _ = 1, 300 do
      local i = math.random(500)
      assert.equal(not stopped[i], stops[i]())
      stopped[i] = true
    end
    cancel()
    for i = 1, 500 do
      assert.equal(not stopped[i], ran[i] == true)
    end
  end)
end)

describe("an error in a callback", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("does not reach the one who cancels, and the others still run", function()
    local ctx, cancel = context.with_cancel(background)
    local ran = {}
    for i = 1, 3 do
      context.after_func(ctx, function()
        ran[#ran + 1] = i
        error(i == 1 and "text" or { i })
      end)
    end
    context.after_func(ctx, function() error(setmetatable({}, { __tostring = function() error("worse") end })) end)
    context.after_func(ctx, function() error(nil) end)
    context.after_func(ctx, function() ran[#ran + 1] = "last" end)
    cancel()
    assert.same({ 1, 2, 3, "last" }, ran)
  end)

  it("counts as run", function()
    local ctx, cancel = context.with_cancel(background)
    cancel()
    context.after_func(ctx, error)
    context.after_func(ctx, function() error("x") end)
    assert.equal(2, context.dispatch())
  end)

  it("goes to warn() with its place", function()
    local output, status = child_process.run [[
      warn "@on"
      local context = require "lcontext"
      local ctx, cancel = context.with_cancel(context.background())
      ctx:after_func(function() error("the problem") end)
      ctx:after_func(function() error(setmetatable({}, { __tostring = function() return "an object" end })) end)
      ctx:after_func(function() error({}) end)
      ctx:after_func(function() error() end)
      ctx:after_func(function() error(setmetatable({}, { __tostring = error })) end)
      ctx:after_func(function() print("the last one") end)
      cancel()
    ]]
    assert.equal(0, status, output)
    assert.matches("Lua warning: [^\n]*:4: the problem", output)
    assert.matches("Lua warning: [^\n]*an object", output)
    assert.equal(5, select(2, output:gsub("Lua warning: ", "")))
    assert.matches("the last one", output)
  end)

  it("is warned of when it runs as a task of the loop, too", function()
    local output, status = child_process.run [[
      warn "@on"
      local context = require "lcontext"
      local loop = require "lcontext.loop"
      loop.run(function()
        local ctx, cancel = context.with_cancel(context.background())
        ctx:after_func(function() error("the problem") end)
        ctx:after_func(function() error(setmetatable({}, { __tostring = error })) end)
        ctx:after_func(function() print("the last one") end)
        cancel()
        loop.sleep(0.01)
      end)
      print("over")
    ]]
    assert.equal(0, status, output)
    assert.matches("Lua warning: [^\n]*:6: the problem", output)
    assert.matches("the last one", output)
    assert.equal(2, select(2, output:gsub("Lua warning: ", "")), output)
    assert.matches("over", output)
  end)
end)

describe("dispatch", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("says how many callbacks ran", function()
    local ctx, cancel = context.with_cancel(background)
    cancel()
    assert.equal(0, context.dispatch())
    for _ = 1, 5 do
      context.after_func(ctx, function() end)
    end
    context.after_func(ctx, print)()
    assert.equal(5, context.dispatch())
    assert.equal(0, context.dispatch(0))
    assert.equal("integer", math.type(context.dispatch()))
  end)

  it("waits for the first at most so long", function()
    assert.equal(0, context.dispatch(0.01))
    assert.equal(0, context.dispatch(-5))
    assert.equal(0, context.dispatch(nil))
    for _, seconds in ipairs { 60, 1e300, math.huge } do
      context.after_func((context.with_timeout(background, 0.01)), function() end)
      assert.equal(1, context.dispatch(seconds))
    end
  end)

  it("refuses NaN and what is no number", function()
    assert.error_matches(function() context.dispatch(0 / 0) end, "bad argument #1 to ")
    assert.error_matches(function() context.dispatch({}) end, "bad argument #1 to ")
    assert.error_matches(function() context.dispatch("soon") end, "bad argument #1 to ")
  end)

  it("happens in a blocking wait and select", function()
    local first = context.with_timeout(background, 0.01)
    local second, cancel = context.with_cancel(background)
    context.after_func(first, function() cancel("callback") end)
    assert.is_true(second:done():wait(10))
    assert.equal("callback", second:cause())
    first = context.with_timeout(background, 0.01)
    local third, cancel_third = context.with_cancel(background)
    context.after_func(first, function() cancel_third() end)
    assert.equal(third:done(), context.select(10, third:done()))
  end)

  it("never happens in the collector, whatever a finalizer calls", function()
    local log = {}
    local ctx = context.with_cancel(background)
    local ended = context.with_cancel(background:with_timeout(0))
    setmetatable({}, { __gc = function()
      ended:after_func(function() log[#log + 1] = "callback" end)
      log[#log + 1] = "dispatch gives " .. context.dispatch()
      ctx:done():wait(0.001)
      context.select(ctx:done(), 0.001)
      log[#log + 1] = "end of the finalizer"
    end })
    collectgarbage()
    assert.same({ "dispatch gives 0", "end of the finalizer" }, log)
    assert.is_true(readable(context.pollfd()))
    assert.equal(1, context.dispatch())
    assert.same({ "dispatch gives 0", "end of the finalizer", "callback" }, log)
  end)

  it("may go on after an error in the middle of a callback that waits", function()
    local ctx, cancel = context.with_cancel(background)
    local order = {}
    context.after_func(ctx, function()
      pcall(function()
        local forever <close> = background:with_cancel()
        forever:done():wait(0.001)
        error("x")
      end)
      order[#order + 1] = 1
    end)
    context.after_func(ctx, function() order[#order + 1] = 2 end)
    cancel()
    table.sort(order)
    assert.same({ 1, 2 }, order)
    local later, cancel_later = context.with_cancel(background)
    context.after_func(later, function() order[#order + 1] = 3 end)
    cancel_later()
    assert.same({ 1, 2, 3 }, order)
  end)
end)

describe("pollfd", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("is one descriptor", function()
    local fd = context.pollfd()
    assert.equal("integer", math.type(fd))
    assert.equal(fd, context.pollfd())
    assert.is_true(fd >= 0)
  end)

  it("is readable while dispatch() has something to do", function()
    local fd = context.pollfd()
    assert.is_false(readable(fd))
    local ctx, cancel = context.with_cancel(background)
    cancel()
    context.after_func(ctx, function() end)
    context.after_func(ctx, function() end)
    assert.is_true(readable(fd))
    assert.equal(2, context.dispatch())
    assert.is_false(readable(fd))
  end)

  it("becomes readable at a deadline", function()
    local fd = context.pollfd()
    local ran = false
    context.after_func((context.with_timeout(background, 0.01)), function() ran = true end)
    assert.is_true(readable(fd, 10))
    assert.is_false(ran)
    assert.equal(1, context.dispatch())
    assert.is_true(ran)
    assert.is_false(readable(fd))
  end)

  it("is not readable before dispatch() has something to do", function()
    local fd = context.pollfd()
    for i = 1, 1000 do
      context.after_func((context.with_timeout(background, 0.0002)), function() end)
      while not readable(fd, 10) do end
      assert.equal(1, context.dispatch(), "round " .. i)
    end
  end)

  it("becomes readable when the collector ends a context", function()
    local fd = context.pollfd()
    context.after_func((context.with_cancel(background)), function() end)
    collectgarbage()
    collectgarbage()
    assert.is_true(readable(fd))
    assert.equal(1, context.dispatch())
  end)

  it("is no longer readable when what was due is stopped", function()
    local fd = context.pollfd()
    local ctx, cancel = context.with_cancel(background)
    cancel()
    local stop = context.after_func(ctx, function() end)
    assert.is_true(stop())
    context.dispatch()
    assert.is_false(readable(fd))
  end)
end)
