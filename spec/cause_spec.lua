local context = require "lcontext"
local custom = require "spec.support.custom"
local leaks = require "spec.support.leaks"

local background = context.background()
local Canceled, DeadlineExceeded = context.Canceled, context.DeadlineExceeded

local parent_cause, child_cause = { "parent" }, { "child" }
local too_slow, finished_early = "too slow", "finished early"

-- Go's TestCause: a function that gives a context, its err and its cause.
local rows = {
  { "Background", nil, nil, function() return background end },
  { "TODO", nil, nil, function() return context.todo() end },
  { "WithCancel", Canceled, Canceled, function()
    local ctx, cancel = context.with_cancel(background)
    cancel()
    return ctx
  end },
  { "WithCancelCause", Canceled, parent_cause, function()
    local ctx, cancel = context.with_cancel(background)
    cancel(parent_cause)
    return ctx
  end },
  { "WithCancelCause nil", Canceled, Canceled, function()
    local ctx, cancel = context.with_cancel(background)
    cancel(nil)
    return ctx
  end },
  { "WithCancelCause nil, then a cause", Canceled, Canceled, function()
    local ctx, cancel = context.with_cancel(background)
    cancel(nil)
    cancel(parent_cause)
    return ctx
  end },
  { "WithCancelCause: parent cause before child", Canceled, parent_cause, function()
    local ctx, cancel_parent = context.with_cancel(background)
    local child, cancel_child = context.with_cancel(ctx)
    cancel_parent(parent_cause)
    cancel_child(child_cause)
    return child
  end },
  { "WithCancelCause: parent cause after child", Canceled, child_cause, function()
    local ctx, cancel_parent = context.with_cancel(background)
    local child, cancel_child = context.with_cancel(ctx)
    cancel_child(child_cause)
    cancel_parent(parent_cause)
    return child
  end },
  { "WithCancelCause: parent cause before nil", Canceled, parent_cause, function()
    local ctx, cancel_parent = context.with_cancel(background)
    local child, cancel_child = context.with_cancel(ctx)
    cancel_parent(parent_cause)
    cancel_child(nil)
    return child
  end },
  { "WithCancelCause: parent cause after nil", Canceled, Canceled, function()
    local ctx, cancel_parent = context.with_cancel(background)
    local child, cancel_child = context.with_cancel(ctx)
    cancel_child(nil)
    cancel_parent(parent_cause)
    return child
  end },
  { "WithCancelCause: child cause after nil", Canceled, Canceled, function()
    local ctx, cancel_parent = context.with_cancel(background)
    local child, cancel_child = context.with_cancel(ctx)
    cancel_parent(nil)
    cancel_child(child_cause)
    return child
  end },
  { "WithCancelCause: child cause before nil", Canceled, child_cause, function()
    local ctx, cancel_parent = context.with_cancel(background)
    local child, cancel_child = context.with_cancel(ctx)
    cancel_child(child_cause)
    cancel_parent(nil)
    return child
  end },
  { "WithTimeout", DeadlineExceeded, DeadlineExceeded, function()
    return (context.with_timeout(background, 0))
  end },
  { "WithTimeout canceled", Canceled, Canceled, function()
    local ctx, cancel = context.with_timeout(background, 1000)
    cancel()
    return ctx
  end },
  { "WithTimeoutCause", DeadlineExceeded, too_slow, function()
    return (context.with_timeout(background, 0, too_slow))
  end },
  { "WithTimeoutCause that expires later", DeadlineExceeded, too_slow, function()
    local ctx = context.with_timeout(background, 0.01, too_slow)
    ctx:done():wait()
    return ctx
  end },
  { "WithTimeoutCause canceled", Canceled, Canceled, function()
    local ctx, cancel = context.with_timeout(background, 1000, too_slow)
    cancel()
    return ctx
  end },
  { "WithTimeoutCause stacked", DeadlineExceeded, too_slow, function()
    local ctx, cancel = context.with_cancel(background)
    ctx = context.with_timeout(ctx, 0, too_slow)
    cancel(finished_early)
    return ctx
  end },
  { "WithTimeoutCause stacked canceled", Canceled, finished_early, function()
    local ctx, cancel = context.with_cancel(background)
    ctx = context.with_timeout(ctx, 1000, too_slow)
    cancel(finished_early)
    return ctx
  end },
  { "WithoutCancel", nil, nil, function() return context.without_cancel(background) end },
  { "WithoutCancel canceled", nil, nil, function()
    local ctx, cancel = context.with_cancel(background)
    ctx = context.without_cancel(ctx)
    cancel(finished_early)
    return ctx
  end },
  { "WithoutCancel timeout", nil, nil, function()
    return context.without_cancel((context.with_timeout(background, 0, too_slow)))
  end },
  { "a custom context that has ended, its parent live", Canceled, Canceled, function()
    local ctx = context.with_cancel(background)
    local own, cancel = context.with_cancel(background)
    local object = custom.wrap(ctx, { done = function() return own:done() end, err = function() return own:err() end })
    cancel()
    return (context.with_cancel(object))
  end },
  { "a custom context that has ended after its parent", Canceled, child_cause, function()
    -- Go tells the parent's cause here; ours is the one of what the children really end with.
    local ctx, cancel_parent = context.with_cancel(background)
    local own, cancel = context.with_cancel(background)
    local object = custom.wrap(ctx, { done = function() return own:done() end, err = function() return own:err() end })
    cancel_parent(parent_cause)
    cancel(child_cause)
    return (context.with_cancel(object))
  end },
  { "a custom context that has ended before its parent", Canceled, child_cause, function()
    local ctx, cancel_parent = context.with_cancel(background)
    local own, cancel = context.with_cancel(background)
    local object = custom.wrap(ctx, { done = function() return own:done() end, err = function() return own:err() end })
    cancel(child_cause)
    cancel_parent(parent_cause)
    return (context.with_cancel(object))
  end },
}

describe("cause", function()
  before_each(leaks.before)
  after_each(leaks.after)

  for _, row in ipairs(rows) do
    local name, err, cause, make = table.unpack(row, 1, 4)
    it("of " .. name, function()
      local ctx = make()
      local value = ctx:with_value("k", 1)
      for _, each in ipairs { ctx, value } do
        assert.equal(err, each:err())
        assert.equal(cause, each:cause())
        assert.equal(cause, context.cause(each))
      end
      if err then
        local child = ctx:with_timeout(100, "unused")
        assert.equal(err, child:err())
        assert.equal(cause, child:cause())
      end
    end)
  end

  it("of a custom context is that of its Done", function()
    local own, cancel = context.with_cancel(background)
    local object = custom.new(own:done())
    assert.is_nil(context.cause(object))
    assert.is_nil(context.cause(custom.new(nil)))
    cancel("why")
    assert.equal("why", context.cause(object))
  end)

  it("may be any value but nil, false too", function()
    local co = coroutine.create(print)
    for _, cause in ipairs { "", "text", 0, -0.5, math.huge, math.mininteger, true, {}, print, co, io.stdout,
      DeadlineExceeded, background, context.key("k") } do
      local ctx, cancel = context.with_cancel(background)
      local child = ctx:with_cancel()
      cancel(cause)
      assert.equal(cause, ctx:cause())
      assert.equal(cause, child:cause())
      assert.equal(math.type(cause), math.type(child:cause()))
      assert.equal(Canceled, ctx:err())
    end
    local ctx, cancel = context.with_cancel(background)
    cancel(false)
    assert.is_false(ctx:cause())
    assert.equal(Canceled, ctx:err())
    local nan, cancel_nan = context.with_cancel(background)
    cancel_nan(0 / 0)
    assert.is_true(nan:cause() ~= nan:cause())
  end)

  it("of DeadlineExceeded by a cancel leaves err Canceled", function()
    local ctx, cancel = context.with_cancel(background)
    cancel(DeadlineExceeded)
    assert.equal(Canceled, ctx:err())
    assert.equal(DeadlineExceeded, ctx:cause())
  end)

  it("flows to descendants that are made later, through values and merges", function()
    local ctx, cancel = context.with_cancel(background)
    local before = context.merge(background:with_cancel(), ctx:with_value("k", 1)):with_cancel()
    cancel(parent_cause)
    local after = context.merge(background:with_cancel(), ctx:with_value("k", 1)):with_cancel()
    assert.equal(parent_cause, before:cause())
    assert.equal(parent_cause, after:cause())
  end)

  it("is kept for a descendant when all between is gone", function()
    local function make()
      local ctx, cancel = context.with_cancel(background)
      local leaf = ctx:with_cancel():with_value("k", 1):with_cancel()
      cancel({ "only here" })
      return leaf
    end
    local leaf = make()
    collectgarbage()
    collectgarbage()
    assert.same({ "only here" }, leaf:cause())
  end)

  it("is not kept when it was not used", function()
    local weak = setmetatable({}, { __mode = "v" })
    local ctx, cancel = context.with_cancel(background)
    cancel("first")
    weak[1] = {}
    cancel(weak[1])
    collectgarbage()
    assert.is_nil(weak[1])
    assert.equal("first", ctx:cause())
  end)

  it("takes only the first argument", function()
    local ctx, cancel = context.with_cancel(background)
    cancel("one", "two")
    assert.equal("one", ctx:cause())
  end)
end)
