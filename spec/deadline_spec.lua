local context = require "lcontext"
local busy = require "spec.support.busy"
local custom = require "spec.support.custom"
local leaks = require "spec.support.leaks"

local background = context.background()

local function check_expired(ctx, cause)
  assert.is_true(ctx:done():wait(60))
  assert.equal(context.DeadlineExceeded, ctx:err())
  assert.equal(cause or context.DeadlineExceeded, ctx:cause())
  assert.is_true(ctx:done():closed())
  assert.equal(0, ctx:remaining())
end

describe("a deadline", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("ends a context with DeadlineExceeded", function()
    for _, make in ipairs {
      function(seconds) return (context.with_deadline(background, context.now() + seconds)) end,
      function(seconds) return (context.with_timeout(background, seconds)) end,
    } do
      check_expired(busy.in_time(function(seconds)
        local ctx = make(seconds)
        return not ctx:err() and ctx
      end))
    end
  end)

  it("never ends a context early", function()
    for _ = 1, 10 do
      local before = context.now()
      local ctx = context.with_timeout(background, 0.01)
      ctx:done():wait()
      assert.is_true(context.now() - before >= 0.0099)
    end
  end)

  it("is held through a custom wrapper and by all below", function()
    local ctx = context.with_timeout(custom.wrap((context.with_timeout(background, 0.01))), 3600)
    check_expired(ctx)
    local child = context.with_timeout(background, 0.01):with_value("k", 1):with_cancel():with_timeout(3600)
    check_expired(child)
  end)

  it("that has passed makes a context that is born ended", function()
    for _, ctx in ipairs {
      (context.with_deadline(background, context.now() - 0.001)), (context.with_deadline(background, context.now())),
      (context.with_deadline(background, 0)), (context.with_deadline(background, -1e300)),
      (context.with_deadline(background, -math.huge)), (context.with_timeout(background, 0)),
      (context.with_timeout(background, -1)), (context.with_timeout(background, -math.huge)),
      (context.with_timeout(background, math.mininteger)),
    } do
      assert.equal(context.DeadlineExceeded, ctx:err())
      assert.equal(context.DeadlineExceeded, ctx:cause())
      assert.is_true(ctx:done():closed())
    end
    assert.equal(0, leaks.more("timers"))
    assert.equal(0, leaks.more("live"))
  end)

  it("that has passed leaves 0 seconds, and a negative number where it is printed", function()
    for _, t in ipairs { 0, -1, -1e9, -1e10, -1e18, -1e300, -math.huge, math.mininteger } do
      for _, make in ipairs { context.with_deadline, context.with_timeout } do
        local ctx = make(background, t)
        assert.equal(0, ctx:remaining(), tostring(t))
        assert.equal(0, ctx:done():timeout(), tostring(t))
        assert.matches("%[%-?[%d.]+s%]", tostring(ctx))
        if t < 0 then
          assert.matches("%[%-[%d.]+s%]", tostring(ctx))
        end
      end
    end
  end)

  it("leaves a cancel function of a born ended context that does nothing", function()
    local ctx, cancel = context.with_timeout(background, 0, "slow")
    cancel("cancelled")
    assert.equal(context.DeadlineExceeded, ctx:err())
    assert.equal("slow", ctx:cause())
  end)

  it("far away, cancelled: Canceled, at once, also through a wrapper", function()
    local inner, cancel = context.with_timeout(background, 1000)
    local ctx = context.with_timeout(custom.wrap(inner), 3600000)
    cancel()
    assert.equal(context.Canceled, ctx:err())
    assert.is_true(ctx:done():closed())
    assert.equal(0, leaks.more("timers"))
  end)

  it("is effective: never later than an ancestor's", function()
    local parent = context.with_deadline(background, 4102444800)
    local below = parent:with_value("k", 1)
    assert.equal(4102444800, parent:deadline())
    assert.equal(4102444800, below:deadline())
    assert.equal(4102444800, (below:with_cancel():deadline()))
    assert.equal(4102444800, (below:with_deadline(4102444801):deadline()))
    assert.equal(4102444800, (below:with_deadline(math.huge):deadline()))
    assert.equal(4102444800, (below:with_timeout(math.huge):deadline()))
    assert.equal(4102444799.5, (below:with_deadline(4102444799.5):deadline()))
    assert.is_nil(below:without_cancel():deadline())
    assert.equal(4102444805, (below:without_cancel():with_deadline(4102444805):deadline()))
  end)

  it("arms no timer of its own where the parent's holds", function()
    local parent = context.with_deadline(background, 4102444800)
    assert.equal(1, leaks.more("timers"))
    local children = { (parent:with_deadline(4102444800)), (parent:with_timeout(1e12)), (parent:with_cancel()) }
    assert.equal(1, leaks.more("timers"))
    children[4] = parent:with_deadline(4102444799)
    assert.equal(2, leaks.more("timers"))
    assert.equal(4, #children)
  end)

  it("stays after the end", function()
    local ctx, cancel = context.with_deadline(background, 4102444800)
    cancel()
    assert.equal(4102444800, ctx:deadline())
    assert.is_number(ctx:remaining())
    local timed = context.with_timeout(background, 0.005)
    local t = timed:deadline()
    timed:done():wait()
    assert.equal(t, timed:deadline())
    assert.equal(0, timed:remaining())
    local child = timed:with_timeout(100)
    assert.equal(t, child:deadline())
    assert.equal(0, child:remaining())
  end)

  it("given as a timeout is asked for as a point in time", function()
    local before = context.now()
    local ctx = context.with_timeout(background, 100)
    local after = context.now()
    local t = ctx:deadline()
    assert.is_true(t >= before + 99.999 and t <= after + 100.001)
    assert.equal(t, ctx:deadline())
    assert.is_true(ctx:remaining() > 90 and ctx:remaining() <= 100)
  end)

  it("of infinity is none", function()
    for _, ctx in ipairs { (context.with_timeout(background, math.huge)),
      (context.with_deadline(background, math.huge)) } do
      assert.is_nil(ctx:deadline())
      assert.is_nil(ctx:remaining())
      assert.is_nil(ctx:err())
      assert.is_false(ctx:done():wait(0))
    end
    assert.equal(0, leaks.more("timers"))
  end)

  it("the same for parent and child is a tie, and the parent's", function()
    for i = 1, 50 do
      local t = context.now() + 0.003
      local parent = context.with_deadline(background, t, "parent" .. i)
      local child = context.with_deadline(parent, t, "child")
      child:done():wait()
      assert.equal(context.DeadlineExceeded, child:err())
      assert.equal("parent" .. i, child:cause())
      assert.equal("parent" .. i, parent:cause())
    end
  end)

  it("the same in the past under a live parent is the child's own", function()
    local child = background:with_cancel():with_deadline(5, "child")
    assert.equal("child", child:cause())
  end)

  it("as the same numbers makes ties at any distance", function()
    math.randomseed(7)
    for _ = 1, 2000 do
      local t = context.now() + math.random() * 10 ^ math.random(0, 9)
      local parent = context.with_deadline(background, t)
      local child = parent:with_deadline(t)
      assert.matches("%.WithCancel$", tostring(child))
      local sooner = parent:with_deadline(t - 0.001)
      assert.matches("s%]%)$", tostring(sooner))
      if parent:err() == nil then
        assert.equal(t - 0.001, sooner:deadline())
      end
    end
  end)

  it("of 0.01 s under one of 0.02 s ends the child alone", function()
    local parent = context.with_timeout(background, 100, "parent")
    local child = parent:with_timeout(0.01, "child")
    check_expired(child, "child")
    assert.is_nil(parent:err())
  end)

  it("is held by err() for who has read the clock", function()
    for _ = 1, 50 do
      local ctx = context.with_timeout(background, 0.001)
      local t = ctx:deadline()
      repeat until context.now() > t + 1e-5
      assert.equal(context.DeadlineExceeded, ctx:err())
      assert.is_true(ctx:done():closed())
    end
  end)

  it("has remaining() == 0 and err() at the same moment", function()
    for _ = 1, 50 do
      local ctx = context.with_timeout(background, 0.001)
      repeat until ctx:remaining() == 0
      assert.equal(context.DeadlineExceeded, ctx:err())
    end
  end)

  it("is held by a child's err() for who has read the clock", function()
    for _ = 1, 20 do
      local ctx = context.with_timeout(background, 0.001)
      local child = ctx:with_cancel():with_value("k", 1)
      repeat until child:remaining() == 0
      assert.equal(context.DeadlineExceeded, child:err())
      assert.equal(context.DeadlineExceeded, ctx:err())
    end
  end)

  it("ends 10,000 contexts, each at its time", function()
    local all = {}
    local start = context.now()
    for i = 1, 10000 do
      all[i] = context.with_deadline(background, start + 0.02 + (i % 100) / 2000)
    end
    for _, ctx in ipairs(all) do
      assert.is_true(ctx:done():wait(60))
      assert.is_true(context.now() >= ctx:deadline() - 0.0001)
      assert.equal(context.DeadlineExceeded, ctx:err())
    end
    assert.is_true(leaks.settles("timers", 0))
    assert.is_true(leaks.settles("live", 0))
  end)

  it("ends parents before children and keeps the cause together", function()
    local order, leaf = busy.in_time(function(seconds)
      local root = context.with_timeout(background, seconds, "root")
      local order = {}
      local leaf = root:with_cancel()
      context.after_func(leaf, function() order[#order + 1] = "leaf" end)
      context.after_func(root, function() order[#order + 1] = "root" end)
      local registered = root:err() == nil
      while #order < 2 do
        context.dispatch(5)
      end
      return registered and order, leaf
    end)
    assert.same({ "root", "leaf" }, order)
    assert.equal("root", leaf:cause())
  end)

  it("takes any cause but nil", function()
    local reason = {}
    for _, cause in ipairs { "text", 0, 1.5, true, reason, print, io.stdout, context.Canceled } do
      assert.equal(cause, context.with_timeout(background, 0, cause):cause())
      assert.equal(cause, context.with_deadline(background, 1, cause):cause())
    end
    assert.is_false((context.with_timeout(background, 0, false):cause()))
    assert.equal(context.DeadlineExceeded, (context.with_timeout(background, 0, nil):cause()))
  end)

  it("keeps a cause object alive until it is needed", function()
    local ctx = busy.in_time(function(seconds)
      local ctx = context.with_timeout(background, seconds, { "why" })
      collectgarbage()
      local cause = ctx:cause()
      if not ctx:err() then
        assert.is_nil(cause)
        return ctx
      end
    end)
    ctx:done():wait()
    collectgarbage()
    assert.same({ "why" }, ctx:cause())
  end)

  it("frees a cause object that was not used", function()
    local weak = setmetatable({ {}, {} }, { __mode = "v" })
    local parent = context.with_timeout(background, 1000)
    local child = parent:with_timeout(2000, weak[1]) -- not its own deadline
    assert.truthy(child)
    collectgarbage()
    assert.is_nil(weak[1])
  end)
end)

describe("wait", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("sees a deadline sooner than its own", function()
    local ctx = context.with_timeout(background, 0.01)
    assert.is_true(ctx:done():wait(60))
  end)

  it("gives up before a later deadline", function()
    local ctx = context.with_timeout(background, 100)
    assert.is_false(ctx:done():wait(0.01))
    assert.is_nil(ctx:err())
  end)
end)
