local context = require "lcontext"
local custom = require "spec.support.custom"
local leaks = require "spec.support.leaks"

local background = context.background()

describe("merge", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("ends with the first of them to end, with its err and cause", function()
    for which = 1, 3 do
      local parents, cancels = {}, {}
      for i = 1, 3 do
        parents[i], cancels[i] = context.with_cancel(background)
      end
      local ctx = context.merge(table.unpack(parents))
      assert.is_nil(ctx:err())
      cancels[which]("cause " .. which)
      assert.equal(context.Canceled, ctx:err())
      assert.equal("cause " .. which, ctx:cause())
      assert.is_true(ctx:done():closed())
      cancels[which % 3 + 1]("later")
      assert.equal("cause " .. which, ctx:cause())
    end
  end)

  it("ends with DeadlineExceeded where a deadline comes first", function()
    local slow = context.with_timeout(background, 0.01, "slow")
    local ctx = context.merge(background:with_cancel(), slow)
    assert.is_true(ctx:done():wait(60))
    assert.equal(context.DeadlineExceeded, ctx:err())
    assert.equal("slow", ctx:cause())
  end)

  it("is ended by its own cancel, and nothing above with it", function()
    local one, two = background:with_cancel(), background:with_timeout(100)
    local ctx, cancel = context.merge(one, two)
    cancel("own")
    assert.equal(context.Canceled, ctx:err())
    assert.equal("own", ctx:cause())
    assert.is_nil(one:err())
    assert.is_nil(two:err())
  end)

  it("ends everything below before a parent's cancel returns", function()
    local one, cancel = context.with_cancel(background)
    local leaf = context.merge(background:with_cancel(), one):with_value("k", 1):with_cancel()
    leaf = context.merge(leaf, (background:with_cancel())):with_cancel()
    cancel("why")
    assert.equal(context.Canceled, leaf:err())
    assert.equal("why", leaf:cause())
  end)

  it("of several that had ended takes the first in order", function()
    local live = background:with_cancel()
    local one, cancel_one = context.with_cancel(background)
    local two = context.with_timeout(background, 0, "two")
    cancel_one("one")
    local ctx = context.merge(live, two, one)
    assert.equal(context.DeadlineExceeded, ctx:err())
    assert.equal("two", ctx:cause())
    ctx = context.merge(one, two, live)
    assert.equal(context.Canceled, ctx:err())
    assert.equal("one", ctx:cause())
  end)

  it("has the soonest deadline", function()
    local one = context.with_deadline(background, 4102444802)
    local two = context.with_deadline(background, 4102444801)
    local three = context.with_deadline(background, 4102444803)
    local ctx = context.merge(one, two, background, three)
    assert.equal(4102444801, ctx:deadline())
    assert.is_number(ctx:remaining())
    assert.equal(4102444801, (ctx:with_deadline(4102444802):deadline()))
    assert.equal(4102444800, (ctx:with_deadline(4102444800):deadline()))
    assert.matches("%.WithCancel$", tostring((ctx:with_deadline(4102444801))))
    assert.is_nil(context.merge(background, (background:with_cancel())):deadline())
    assert.is_nil(context.merge(background, (background:with_cancel())):remaining())
  end)

  it("keeps the deadline after the end", function()
    local ctx, cancel = context.merge(context.with_deadline(background, 4102444802):without_cancel(),
      (context.with_deadline(background, 4102444801)))
    cancel()
    assert.equal(4102444801, ctx:deadline())
  end)

  it("looks values up from left to right", function()
    local one = background:with_value("a", 1):with_value("b", nil)
    local two = background:with_value("a", 2):with_value("b", 2):with_value("c", false)
    local three = background:with_value("c", 3):with_value("d", 3)
    local ctx = context.merge(one, two, three)
    assert.equal(1, ctx:value("a"))
    assert.is_nil(ctx:value("b"))
    assert.is_false(ctx:value("c"))
    assert.equal(3, ctx:value("d"))
    assert.is_nil(ctx:value("e"))
    local below = ctx:with_value("a", 5):with_cancel()
    assert.equal(5, below:value("a"))
    assert.equal(3, below:value("d"))
  end)

  it("looks values up through deep parents and merges of merges", function()
    local left, right = background, background
    for i = 1, 100 do
      left = left:with_value(i, "left" .. i)
      right = right:with_value(i + 50, "right" .. i + 50)
    end
    local ctx = context.merge(left, right)
    local other = context.merge(context.merge(right, left), left)
    for i = 1, 150 do
      assert.equal(i <= 100 and "left" .. i or "right" .. i, ctx:value(i))
      assert.equal(i > 50 and "right" .. i or "left" .. i, other:value(i))
    end
  end)

  it("of one, of one twice, of roots", function()
    local one, cancel = context.with_cancel(background:with_value("k", 1))
    local ctx = context.merge(one, one, one)
    assert.equal(1, ctx:value("k"))
    local single = context.merge(one)
    cancel("why")
    assert.equal("why", ctx:cause())
    assert.equal("why", single:cause())
    local never, cancel_never = context.merge(background, context.todo())
    assert.is_nil(never:err())
    assert.is_false(never:done():closed())
    cancel_never()
    assert.equal(context.Canceled, never:err())
  end)

  it("is a method too", function()
    local one, cancel = context.with_cancel(background)
    local ctx = background:merge(one)
    cancel()
    assert.equal(context.Canceled, ctx:err())
  end)

  it("of a parent and its own child ends with either", function()
    local parent, cancel = context.with_cancel(background)
    local child, cancel_child = parent:with_cancel()
    local ctx = context.merge(child, parent)
    local other = context.merge(parent, child)
    cancel_child("child")
    assert.equal("child", ctx:cause())
    assert.equal("child", other:cause())
    cancel("parent")
    assert.equal("child", ctx:cause())
    local second = context.merge(child, parent)
    assert.equal("child", second:cause())
  end)

  it("of hundreds", function()
    local parents, cancels = {}, {}
    for i = 1, 200 do
      parents[i], cancels[i] = background:with_value("k" .. i, i):with_cancel()
    end
    local ctx = context.merge(table.unpack(parents))
    assert.equal(200, ctx:value("k200"))
    cancels[123]("123")
    assert.equal("123", ctx:cause())
  end)

  it("nests a thousand deep", function()
    local root, cancel = context.with_cancel(background:with_value("k", 1))
    local ctx = root
    for _ = 1, 1000 do
      ctx = context.merge(ctx, background)
    end
    assert.equal(1, ctx:value("k"))
    assert.is_string(tostring(ctx))
    local ran = 0
    local stop = context.after_func(ctx, function() ran = ran + 1 end)
    assert.truthy(stop)
    cancel("why")
    assert.equal(context.Canceled, ctx:err())
    assert.equal("why", ctx:cause())
    assert.equal(1, ran)
  end)

  it("holds its parents and leaves nothing in them", function()
    local one, two = background:with_cancel(), background:with_cancel()
    for _ = 1, 100 do
      local _, cancel = context.merge(one, two)
      cancel()
      context.merge(two, one)
    end
    collectgarbage()
    collectgarbage()
    assert.equal(2, leaks.more("contexts"))
    local ctx = context.merge((background:with_cancel()), background:with_value("k", "held"))
    collectgarbage()
    assert.is_nil(ctx:err())
    assert.equal("held", ctx:value("k"))
  end)

  it("of customs and others asks each in its place", function()
    local asked = {}
    local function answering(name, answers)
      return custom.new(nil, { value = function(_, key)
        asked[#asked + 1] = name
        return answers[key]
      end })
    end
    local ctx = context.merge(answering("one", { a = 1 }), background:with_value("a", "plain"):with_value("b", "plain"),
      answering("two", { b = 2, c = 2 }))
    assert.equal(1, ctx:value("a"))
    assert.equal("plain", ctx:value("b"))
    assert.equal(2, ctx:value("c"))
    assert.is_nil(ctx:value("d"))
    asked = {}
    ctx:value("b")
    assert.same({ "one" }, asked)
  end)

  it("ends with a custom context's Done", function()
    local own, cancel = context.with_cancel(background)
    local ctx = context.merge(background:with_cancel(), custom.new(own:done()))
    cancel("custom")
    assert.equal("custom", ctx:cause())
  end)

  it("asks custom contexts for their deadlines", function()
    local ctx = context.merge(custom.new(nil, { deadline = function() return 4102444800 end }),
      (context.with_deadline(background, 4102444801)))
    assert.equal(4102444800, ctx:deadline())
    ctx = context.merge(custom.new(nil, { deadline = function() return 4102444803 end }),
      (context.with_deadline(background, 4102444801)))
    assert.equal(4102444801, ctx:deadline())
  end)
end)
