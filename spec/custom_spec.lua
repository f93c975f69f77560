local context = require "lcontext"
local child_process = require "spec.support.child"
local custom = require "spec.support.custom"
local leaks = require "spec.support.leaks"

local background = context.background()

-- Objects with a metatable, as a class.
local Class = {}
Class.__index = Class
Class.__name = "example.Request"
function Class.new(ctx) return setmetatable({ ctx = ctx, asked = 0 }, Class) end
function Class:deadline() return self.ctx:deadline() end
function Class:done() return self.ctx:done() end
function Class:err() return self.ctx:err() end
function Class:value(key)
  self.asked = self.asked + 1
  if key == "request" then
    return self
  end
  return self.ctx:value(key)
end

describe("a custom context", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("may be a table with the four methods, or an object with a class", function()
    for _, make in ipairs { custom.wrap, Class.new } do
      local ctx, cancel = background:with_value("k", "v"):with_cancel()
      local object = make(ctx)
      local child = context.with_cancel(object)
      local timed = context.with_timeout(object, 100)
      local value = context.with_value(object, "l", 1)
      local merged = context.merge(background, object)
      local detached = context.without_cancel(object)
      for _, each in ipairs { child, timed, value, merged, detached } do
        assert.equal("v", each:value("k"))
        assert.is_nil(each:err())
      end
      cancel("why")
      for _, each in ipairs { child, timed, value, merged } do
        assert.equal(context.Canceled, each:err())
        assert.equal("why", each:cause())
      end
      assert.is_nil(detached:err())
      assert.equal(context.Canceled, (context.with_cancel(object):err()))
      assert.equal("why", context.cause(object))
    end
  end)

  it("may give its methods by an __index function", function()
    local ctx, cancel = context.with_cancel(background)
    local object = setmetatable({}, { __index = function(_, name)
      return ctx[name] and function(_, ...) return ctx[name](ctx, ...) end
    end })
    local child = context.with_cancel(object)
    cancel("why")
    assert.equal("why", child:cause())
  end)

  it("needs all four methods", function()
    for _, name in ipairs { "deadline", "done", "err", "value" } do
      local object = custom.new(nil)
      object[name] = nil
      assert.error_matches(function() context.with_cancel(object) end, "context expected")
    end
  end)

  it("never ends when its done() is nil", function()
    local object = custom.new(nil)
    local child, cancel = context.with_cancel(object)
    assert.is_nil(child:err())
    assert.is_nil(context.cause(object))
    local ran = false
    local stop = context.after_func(object, function() ran = true end)
    assert.is_true(stop())
    assert.is_false(stop())
    cancel()
    assert.equal(context.Canceled, child:err())
    assert.is_false(ran)
  end)

  it("with a Done of its own ends its children with that context's err and cause", function()
    local standard, cancel_standard = context.with_cancel(background)
    local own, cancel_own = context.with_cancel(background)
    local object = custom.wrap(standard, { done = function() return own:done() end })
    local child = context.with_cancel(object)
    local grandchild = child:with_value("k", 1):with_timeout(1000)
    cancel_standard("standard")
    assert.is_nil(child:err())
    cancel_own("own")
    assert.equal(context.Canceled, child:err())
    assert.equal("own", child:cause())
    assert.equal("own", grandchild:cause())
  end)

  it("with the Done of an expired context ends children with DeadlineExceeded", function()
    local own = context.with_timeout(background, 0.01, "slow")
    local child = context.with_cancel(custom.new(own:done()))
    assert.is_true(child:done():wait(60))
    assert.equal(context.DeadlineExceeded, child:err())
    assert.equal("slow", child:cause())
  end)

  it("is not changed by its children", function()
    local own, cancel_own = context.with_cancel(background)
    local object = custom.new(own:done())
    local child, cancel_child = context.with_cancel(object)
    cancel_child("child")
    assert.is_nil(own:err())
    assert.is_nil(context.cause(object))
    cancel_own("own")
    assert.equal("child", child:cause())
    assert.equal("own", context.cause(object))
  end)

  it("may cancel a child itself", function()
    local own = context.with_cancel(background)
    local object = custom.new(own:done())
    local child, cancel = context.with_cancel(object)
    object.cancel = cancel
    object.child = child
    object.cancel("by itself")
    assert.equal("by itself", child:cause())
  end)

  it("may show the Done of its own child", function()
    local object = custom.new(nil)
    local child, cancel = context.with_cancel(object)
    object.done = function() return child:done() end
    local other = context.with_cancel(object)
    cancel("loop")
    assert.equal("loop", other:cause())
  end)

  it("may change its mind about its Done", function()
    local one, cancel_one = context.with_cancel(background)
    local two, cancel_two = context.with_cancel(background)
    local object = custom.new(one:done())
    local first = context.with_cancel(object)
    object.done = function() return two:done() end
    local second = context.with_cancel(object)
    cancel_two("two")
    assert.is_nil(first:err())
    assert.equal("two", second:cause())
    cancel_one("one")
    assert.equal("one", first:cause())
  end)

  it("costs nothing that stays", function()
    local ctx = background:with_cancel()
    local object = custom.wrap(ctx)
    for _ = 1, 200 do
      local _, cancel = context.with_cancel(object)
      cancel()
      context.with_timeout(object, 100)
      context.with_value(object, "k", 1)
    end
    collectgarbage()
    collectgarbage()
    assert.equal(1, leaks.more("contexts"))
    assert.equal(0, leaks.more("waiters"))
    assert.equal(0, leaks.more("callbacks"))
    assert.equal(0, leaks.more("timers"))
  end)

  it("has callbacks", function()
    local own, cancel = context.with_cancel(background)
    local object = custom.new(own:done())
    local order = {}
    context.after_func(object, function() order[#order + 1] = 1 end)
    context.after_func(object, function() order[#order + 1] = 2 end)
    collectgarbage()
    collectgarbage()
    cancel()
    table.sort(order)
    assert.same({ 1, 2 }, order)
    local late = false
    context.after_func(object, function() late = true end)
    context.dispatch()
    assert.is_true(late)
  end)
end)

describe("the Done of a custom context", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("must be nil or a Done", function()
    local stop = context.after_func(background, print)
    for _, rubbish in ipairs { 1, "x", true, false, {}, print, io.stdout, background, context.key(), stop,
      context.Canceled, (background:with_cancel()) } do
      local object = custom.new(rubbish)
      object.done = function() return rubbish end
      for _, make in ipairs { context.with_cancel, context.without_cancel, context.merge, context.cause } do
        assert.error_matches(function() make(object) end, "done%(%) must return nil or the Done of a context")
      end
      assert.error_matches(function() context.with_value(object, "k", 1) end, "done%(%)")
      assert.error_matches(function() context.with_values(object, {}) end, "done%(%)")
      assert.error_matches(function() context.with_timeout(object, 1) end, "done%(%)")
      assert.error_matches(function() context.with_deadline(object, 1) end, "done%(%)")
      assert.error_matches(function() context.after_func(object, print) end, "done%(%)")
    end
    stop()
  end)

  it("may be given with more results, or none", function()
    local own, cancel = context.with_cancel(background)
    local object = custom.new(nil, { done = function() return own:done(), "more", 5 end })
    local child = context.with_cancel(object)
    cancel()
    assert.equal(context.Canceled, child:err())
    object.done = function() end
    assert.is_nil((context.with_cancel(object):err()))
  end)
end)

describe("the deadline of a custom context", function()
  before_each(leaks.before)
  after_each(leaks.after)

  local function with_deadline(value)
    return custom.new(nil, { deadline = function() return value end })
  end

  it("holds for children with later deadlines", function()
    local object = with_deadline(4102444800)
    for _, child in ipairs { (context.with_deadline(object, 4102444801)), (context.with_deadline(object, 4102444800)),
      (context.with_timeout(object, 1e12)) } do
      assert.equal(4102444800, child:deadline())
      assert.matches("%.WithCancel$", tostring(child))
      assert.is_true(child:remaining() > 0)
    end
    assert.equal(4102444799, (context.with_deadline(object, 4102444799):deadline()))
    assert.equal(4102444800, (context.with_cancel(object):deadline()))
    assert.equal(4102444800, context.with_value(object, "k", 1):deadline())
    assert.is_nil(context.without_cancel(object):deadline())
    assert.equal(4102444800, (context.with_deadline(object, math.huge):deadline()))
  end)

  it("that has passed leaves 0 seconds", function()
    local child = context.with_cancel(with_deadline(5))
    assert.equal(5, child:deadline())
    assert.equal(0, child:remaining())
  end)

  it("may be infinity or NaN: none", function()
    for _, value in ipairs { math.huge, 0 / 0 } do
      local child = context.with_deadline(with_deadline(value), 4102444800)
      assert.equal(4102444800, child:deadline())
      assert.is_nil((context.with_cancel(with_deadline(value)):deadline()))
      assert.is_nil((context.with_cancel(with_deadline(value)):remaining()))
    end
  end)

  it("must be nil or a number", function()
    for _, rubbish in ipairs { "soon", true, {}, print, io.stdout } do
      local object = with_deadline(rubbish)
      assert.error_matches(function() context.with_deadline(object, 4102444800) end, "deadline%(%) must return")
      assert.error_matches(function() context.with_timeout(object, 5) end, "deadline%(%) must return")
      local child = context.with_cancel(object)
      assert.error_matches(function() child:deadline() end, "deadline%(%) must return")
      assert.error_matches(function() child:remaining() end, "deadline%(%) must return")
      assert.is_string(tostring(child))
      assert.is_nil(child:err())
    end
  end)

  it("of a wrapper may hide that of what it wraps", function()
    local ctx = context.with_timeout(background, 100)
    local object = custom.wrap(ctx, { deadline = function() return nil end })
    assert.is_nil((context.with_cancel(object):deadline()))
    assert.equal(4102444800, (context.with_deadline(object, 4102444800):deadline()))
    object = custom.wrap(ctx, { deadline = function() return ctx:deadline() - 50 end })
    local child = context.with_timeout(object, 80)
    assert.equal(ctx:deadline() - 50, child:deadline())
    assert.is_true(child:remaining() <= 50)
  end)

  it("is asked when it is wanted, of the nearest", function()
    local t = 4102444800
    local object = custom.new(nil, { deadline = function() return t end })
    local child = context.with_value(object, "k", 1):with_cancel()
    assert.equal(4102444800, child:deadline())
    t = 4102444700
    assert.equal(4102444700, child:deadline())
    local near = child:with_deadline(4102444600)
    assert.equal(4102444600, near:deadline())
  end)
end)

describe("the values of a custom context", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("are asked of its value method, with itself and the key", function()
    local seen
    local object = custom.new(nil, { value = function(self, ...)
      seen = table.pack(self, ...)
      return "answer"
    end })
    local key = context.key("k")
    local child = context.with_cancel(object):with_value("own", 1):with_timeout(10)
    assert.equal("answer", child:value(key))
    assert.equal(2, seen.n)
    assert.equal(object, seen[1])
    assert.equal(key, seen[2])
    assert.equal("answer", child:value(1.0))
    assert.equal("answer", child:value("text"))
    seen = nil
    assert.equal(1, child:value("own"))
    assert.is_nil(seen)
  end)

  it("may be any, false too", function()
    for _, value in ipairs { false, true, 0, "", {}, print, background } do
      local child = context.with_cancel(custom.new(nil, { value = function() return value, "more" end }))
      assert.equal(value, child:value("k"))
      assert.equal(1, select("#", child:value("k")))
    end
  end)

  it("are found behind 100 layers, and behind another custom", function()
    local inner = Class.new(background:with_value("deep", "down"))
    local outer = Class.new((context.with_cancel(inner)))
    local ctx = context.with_cancel(outer)
    for i = 1, 100 do
      ctx = ctx:with_value(i, i)
    end
    assert.equal("down", ctx:value("deep"))
    assert.equal(outer, ctx:value("request"))
    assert.equal(100, ctx:value(100))
    assert.equal(1, ctx:value(1))
    assert.equal(2, outer.asked)
    assert.equal(1, inner.asked)
  end)

  it("are asked for every key that no context below has", function()
    local object = custom.new(nil, { value = function(_, key) return key end })
    local ctx = context.with_cancel(object)
    for i = 1, 100 do
      ctx = ctx:with_value(i, "own")
    end
    for i = 1, 3000 do
      local key = context.key("key " .. i)
      assert.equal(key, ctx:value(key), "found nothing")
    end
  end)

  it("hide what it does not pass on", function()
    local ctx = background:with_value("k", "hidden")
    local object = custom.wrap(ctx, { value = function() return nil end })
    assert.is_nil(context.with_value(object, "l", 1):value("k"))
  end)

  it("may be overridden alone", function()
    local ctx, cancel = background:with_value("k", "old"):with_timeout(100)
    local object = custom.wrap(ctx, { value = function(_, key) return key == "k" and "new" or ctx:value(key) end })
    local child = context.with_cancel(object)
    assert.equal("new", child:value("k"))
    assert.equal(ctx:deadline(), child:deadline())
    cancel("why")
    assert.equal("why", child:cause())
  end)

  it("nil and NaN keys are not asked for", function()
    local object = custom.new(nil, { value = function() return "wrong" end })
    local child = context.with_cancel(object)
    assert.is_nil(child:value(nil))
    assert.is_nil(child:value(0 / 0))
  end)

  it("may be looked up through many customs in a merge", function()
    local objects = {}
    for i = 1, 100 do
      objects[i] = custom.new(nil, { value = function(_, key) return key == i and i or nil end })
    end
    local ctx = context.merge(table.unpack(objects))
    for i = 1, 100 do
      assert.equal(i, ctx:value(i))
    end
    assert.is_nil(ctx:value(101))
  end)

  it("may derive contexts while they are asked", function()
    local object
    object = custom.new(nil, { value = function(_, key)
      if key == 0 then
        return "end"
      end
      collectgarbage("step")
      return context.with_cancel(object):value(key - 1)
    end })
    assert.equal("end", (context.with_cancel(object):value(20)))
  end)
end)

describe("methods of a custom context that raise", function()
  before_each(leaks.before)
  after_each(leaks.after)

  local problem = { "problem" }
  local function raise() error(problem) end
  local function raised(f, ...)
    local ok, err = pcall(f, ...)
    assert.is_false(ok)
    assert.equal(problem, err)
  end

  it("raise through the call that has asked", function()
    raised(context.with_cancel, custom.new(nil, { done = raise }))
    raised(context.merge, background, custom.new(nil, { done = raise }))
    raised(context.after_func, custom.new(nil, { done = raise }), print)
    raised(context.with_timeout, custom.new(nil, { deadline = raise }), 5)
    raised(context.merge, background, custom.new(nil, { deadline = raise }))
    local child = context.with_cancel(custom.new(nil, { deadline = raise, value = raise, err = raise }))
    raised(child.deadline, child)
    raised(child.remaining, child)
    raised(child.value, child, "k")
    assert.is_nil(child:err())
    assert.equal("custom.WithCancel", tostring(child))
    raised(context.with_cancel, setmetatable({}, { __index = raise }))
  end)

  it("need not be functions", function()
    local object = custom.new(nil)
    object.deadline, object.value, object.err = 1, 2, 3
    local child = context.with_cancel(object)
    assert.is_false((pcall(child.deadline, child)))
    assert.is_false((pcall(child.value, child, "k")))
    object.done = 4
    assert.is_false((pcall(context.with_cancel, object)))
    assert.is_nil(child:err())
  end)

  it("leave no trace when they yield", function()
    local object = custom.new(nil, { value = coroutine.yield, deadline = coroutine.yield, done = coroutine.yield })
    local co = coroutine.create(function() return context.with_cancel(object) end)
    assert.is_false((coroutine.resume(co)))
  end)
end)

describe("printing a custom context", function()
  before_each(leaks.before)
  after_each(leaks.after)

  local function with_metatable(metatable)
    return setmetatable(custom.new(nil), metatable)
  end

  it("uses its __tostring or __name", function()
    assert.equal("mine.WithCancel",
      tostring((context.with_cancel(with_metatable { __tostring = function() return "mine" end }))))
    assert.equal("example.Name.WithValue(k, v)",
      tostring(context.with_value(with_metatable { __name = "example.Name" }, "k", "v")))
    assert.equal("mine.WithoutCancel", tostring(context.without_cancel(
      with_metatable { __tostring = function() return "mine" end, __name = "example.Name" })))
    assert.equal("example.Request.WithCancel", tostring((context.with_cancel(Class.new(background)))))
    assert.equal("context.Merge(example.Request, context.TODO)",
      tostring((context.merge(Class.new(background), context.todo()))))
  end)

  it("works without either, and with rubbish", function()
    for _, metatable in ipairs { {}, { __name = 5 }, { __name = {} }, { __name = false } } do
      local child = context.with_cancel(with_metatable(metatable))
      assert.matches("^[^.]+%.WithCancel$", tostring(child))
      local merged = context.merge(with_metatable(metatable), context.todo())
      assert.matches("^context%.Merge%([^.]+, context%.TODO%)$", tostring(merged))
      assert.matches("%.WithCancel$", tostring((merged:with_cancel())))
    end
  end)

  it("raises what its __tostring raises, and recovers from recursion", function()
    local child = context.with_cancel(with_metatable { __tostring = function() error({ "x" }) end })
    assert.is_false((pcall(tostring, child)))
    local object
    object = with_metatable { __tostring = function() return tostring((context.with_cancel(object))) end }
    assert.is_false((pcall(tostring, object)))
  end)
end)

describe("a userdata as a custom context", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("is one if it has the methods", function()
    -- Files share a metatable, so this needs a process of its own.
    local output, status = child_process.run [[
      local context = require "lcontext"
      local own, cancel = context.with_cancel(context.background())
      local methods = getmetatable(io.stdout).__index
      assert(not pcall(context.with_cancel, io.stdout))
      function methods.deadline() end
      function methods.done() return own:done() end
      function methods.err() return own:err() end
      function methods.value(self, key) return key == "file" and self or nil end
      local child = context.with_cancel(io.stdout)
      assert(child:value("file") == io.stdout)
      print(child)
      cancel("why")
      assert(child:cause() == "why")
    ]]
    assert.equal(0, status, output)
    assert.matches("^file %(0x%x+%)%.WithCancel\n$", output)
  end)
end)
