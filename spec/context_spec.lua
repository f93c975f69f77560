local context = require "lcontext"
local custom = require "spec.support.custom"
local leaks = require "spec.support.leaks"

local background = context.background()

-- Calls f from a Lua function, so that an error has a position.
local function message_of(f, ...)
  local arguments = table.pack(...)
  local ok, message = pcall(function()
    f(table.unpack(arguments, 1, arguments.n))
  end)
  assert.is_false(ok)
  return message
end

local constructors = {
  with_cancel = function(...) return context.with_cancel(...) end,
  with_deadline = function(ctx, t) return context.with_deadline(ctx, t or 1e10) end,
  with_timeout = function(ctx, s) return context.with_timeout(ctx, s or 100) end,
  with_value = function(ctx) return context.with_value(ctx, "key", 1) end,
  with_values = function(ctx) return context.with_values(ctx, { key = 1 }) end,
  without_cancel = function(...) return context.without_cancel(...) end,
  merge = function(...) return context.merge(...) end,
}

describe("the roots", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("are always the same object each", function()
    assert.equal(context.background(), context.background())
    assert.equal(context.todo(), context.todo())
    assert.not_equal(context.background(), context.todo())
  end)

  it("never end and have nothing", function()
    for _, root in ipairs { context.background(), context.todo() } do
      assert.is_nil(root:err())
      assert.is_nil(root:cause())
      assert.is_nil(root:done())
      assert.is_nil(root:deadline())
      assert.is_nil(root:remaining())
      assert.is_nil(root:value("anything"))
    end
  end)

  it("are not counted", function()
    collectgarbage()
    assert.equal(0, leaks.more("contexts"))
  end)

  it("stay live through <close>", function()
    do
      local ctx <close> = context.background()
      assert.truthy(ctx)
    end
    assert.is_nil(context.background():err())
    local child <close> = context.background():with_cancel()
    assert.is_nil(child:err())
  end)

  it("print as in Go", function()
    assert.equal("context.Background", tostring(context.background()))
    assert.equal("context.TODO", tostring(context.todo()))
  end)
end)

describe("with_cancel", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("gives a live context and a function that ends it", function()
    local ctx, cancel = context.with_cancel(background)
    assert.is_nil(ctx:err())
    assert.is_nil(ctx:cause())
    assert.is_false(ctx:done():closed())
    assert.equal("function", type(cancel))
    assert.equal(0, select("#", cancel()))
    assert.equal(context.Canceled, ctx:err())
    assert.equal(context.Canceled, ctx:cause())
    assert.is_true(ctx:done():closed())
  end)

  it("ends once and for good: later cancels do nothing", function()
    local ctx, cancel = context.with_cancel(background)
    cancel()
    cancel("late")
    cancel()
    assert.equal(context.Canceled, ctx:err())
    assert.equal(context.Canceled, ctx:cause())
    local other, cancel_other = context.with_cancel(background)
    cancel_other("first")
    cancel_other("second")
    cancel_other()
    assert.equal("first", other:cause())
  end)

  it("ends every descendant before cancel returns", function()
    local root, cancel = context.with_cancel(background)
    local all = { root }
    math.randomseed(42)
    for i = 2, 2000 do
      local parent = all[math.random(#all)]
      local kind = math.random(5)
      all[i] = kind == 1 and (parent:with_cancel())
        or kind == 2 and (parent:with_timeout(1000 + i))
        or kind == 3 and parent:with_value("i", i)
        or kind == 4 and (parent:merge(background))
        or parent:with_values { i = i }
    end
    for _, ctx in ipairs(all) do
      assert.is_nil(ctx:err())
    end
    cancel("why")
    for _, ctx in ipairs(all) do
      assert.equal(context.Canceled, ctx:err())
      assert.equal("why", ctx:cause())
      assert.is_true(ctx:done():closed())
    end
    assert.equal(0, leaks.more("live"))
    assert.equal(0, leaks.more("timers"))
  end)

  it("leaves parents and siblings alone", function()
    local parent, cancel_parent = context.with_cancel(background)
    local one, cancel_one = parent:with_cancel()
    local two = parent:with_cancel()
    cancel_one()
    assert.equal(context.Canceled, one:err())
    assert.is_nil(parent:err())
    assert.is_nil(two:err())
    cancel_parent()
    assert.equal(context.Canceled, two:err())
  end)

  it("is born ended under a parent that has ended, with its err and cause", function()
    local parent, cancel = context.with_cancel(background)
    cancel("gone")
    local children = {
      (parent:with_cancel()), (parent:with_timeout(1000)), (parent:with_timeout(-1, "mine")),
      (parent:with_deadline(0, "mine")), parent:with_value("k", 1), parent:with_values { k = 1 },
      (parent:merge(background)), (context.merge(background, parent)),
    }
    for _, child in ipairs(children) do
      assert.equal(context.Canceled, child:err())
      assert.equal("gone", child:cause())
      assert.is_true(child:done():closed())
    end
    local expired = background:with_timeout(0, "slow")
    local child = expired:with_cancel()
    assert.equal(context.DeadlineExceeded, child:err())
    assert.equal("slow", child:cause())
  end)

  it("takes nothing from a cancel function that outlives its context", function()
    local cancel = select(2, context.with_cancel(background))
    collectgarbage()
    assert.equal(1, leaks.more("live"))
    cancel()
    assert.equal(0, leaks.more("live"))
  end)

  it("ends at scope exit, also by an error", function()
    local seen
    do
      local ctx <close> = context.with_cancel(background)
      seen = ctx
      assert.is_nil(ctx:err())
    end
    assert.equal(context.Canceled, seen:err())
    pcall(function()
      local ctx <close> = context.with_timeout(background, 100)
      seen = ctx
      error("out")
    end)
    assert.equal(context.Canceled, seen:err())
    assert.equal(context.Canceled, seen:cause())
  end)

  it("does not end with its with_value child's scope", function()
    local parent, cancel = context.with_cancel(background)
    local value = parent:with_value("k", 1)
    local child, cancel_child = value:with_cancel()
    cancel_child()
    assert.equal(context.Canceled, child:err())
    assert.is_nil(value:err())
    cancel()
    assert.equal(context.Canceled, value:err())
    assert.equal(1, value:value("k"))
    assert.equal(1, child:value("k"))
  end)

  it("cancels a context with 100,000 children", function()
    local parent, cancel = context.with_cancel(background)
    local children = {}
    for i = 1, 100000 do
      children[i] = parent:with_cancel()
    end
    cancel()
    assert.equal(0, leaks.more("live"))
    assert.equal(context.Canceled, children[100000]:err())
  end)

  it("cancels, prints and frees a chain of 100,000", function()
    local root, cancel = context.with_cancel(background)
    local leaf = root
    for _ = 1, 100000 do
      leaf = leaf:with_cancel()
    end
    assert.equal("context.Background" .. (".WithCancel"):rep(100001), tostring(leaf))
    local done = leaf:done()
    root = nil -- luacheck: ignore
    cancel()
    assert.equal(context.Canceled, leaf:err())
    assert.is_true(done:closed())
  end)

  it("frees a chain that nobody has cancelled", function()
    local leaf = background:with_cancel()
    for i = 1, 100000 do
      leaf = i % 2 == 0 and leaf:with_cancel() or leaf:with_value("i", i)
    end
    leaf = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.equal(0, leaks.more("contexts"))
  end)
end)

describe("layers of contexts", function()
  before_each(leaks.before)
  after_each(leaks.after)

  -- Go's testLayers: 30 or more layers of random kinds; what is stored stays visible, and one layer's end
  -- reaches the leaf at once.
  local function layers(seed, seconds)
    math.randomseed(seed)
    local leaf, values, cancels = background, {}, {}
    local count, far = 30 + math.random(0, 30), 0
    for i = 1, count do
      local kind = math.random(3)
      if kind == 1 then
        leaf, cancels[#cancels + 1] = leaf:with_cancel()
      elseif kind == 2 then
        far = far + 1
        leaf, cancels[#cancels + 1] = leaf:with_timeout(seconds or 1000 + math.random() * 1000)
      else
        local key = context.key("key" .. i)
        values[key] = i
        leaf = leaf:with_value(key, i)
      end
    end
    if seconds then
      leaf, cancels[#cancels + 1] = leaf:with_timeout(seconds)
    elseif #cancels == 0 then
      leaf, cancels[1] = leaf:with_cancel()
    end
    local function check(err)
      local where = ("seed %d: %s"):format(seed, leaf)
      assert.equal(err, leaf:err(), where)
      for key, value in pairs(values) do
        assert.equal(value, leaf:value(key), where)
      end
      assert.equal(1, tostring(leaf):find("context.Background.", 1, true), where)
    end
    return leaf, cancels, check
  end

  it("end with any of them that is cancelled", function()
    for seed = 1, 100 do
      local leaf, cancels, check = layers(seed)
      check(nil)
      cancels[math.random(#cancels)]()
      assert.is_true(leaf:done():closed())
      check(context.Canceled)
    end
  end)

  it("end with the first deadline", function()
    for seed = 1, 5 do
      local leaf, _, check = layers(seed, 0.005)
      assert.is_true(leaf:done():wait(60))
      check(context.DeadlineExceeded)
    end
  end)
end)

describe("without_cancel", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("passes values and nothing else", function()
    local parent, cancel = context.with_timeout(background:with_value("k", "v"), 100, "slow")
    local ctx = context.without_cancel(parent)
    local function check()
      assert.is_nil(ctx:deadline())
      assert.is_nil(ctx:remaining())
      assert.is_nil(ctx:done())
      assert.is_nil(ctx:err())
      assert.is_nil(ctx:cause())
      assert.equal("v", ctx:value("k"))
    end
    check()
    cancel("why")
    check()
  end)

  it("lets what is derived from it live", function()
    local parent = background:with_timeout(0)
    local child, cancel = parent:without_cancel():with_timeout(100)
    assert.is_nil(child:err())
    assert.is_number(child:deadline())
    cancel()
    assert.equal(context.Canceled, child:err())
    local value = parent:without_cancel():with_value("k", 1)
    assert.is_nil(value:done())
    assert.is_nil(value:err())
  end)
end)

describe("ctx:done()", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("is the same object each time", function()
    local ctx, cancel = context.with_cancel(background)
    local done = ctx:done()
    assert.equal(done, ctx:done())
    collectgarbage()
    assert.equal(done, ctx:done())
    cancel()
    assert.equal(done, ctx:done())
  end)

  it("is another for another context", function()
    local parent = background:with_cancel()
    local child = parent:with_cancel()
    assert.not_equal(parent:done(), child:done())
  end)

  it("is nil for what can never end", function()
    assert.is_nil(background:with_value("k", 1):done())
    assert.is_nil(background:with_value("k", 1):with_values { a = 1 }:done())
    assert.is_nil(context.with_value(custom.new(nil), "k", 1):done())
    assert.is_nil(background:with_timeout(5):without_cancel():with_value("k", 1):done())
  end)

  it("is there for a cancellable context, whatever its parent", function()
    assert.is_truthy(background:with_cancel():done())
    assert.is_truthy(background:with_timeout(math.huge):done())
    assert.is_truthy(background:merge():done())
    assert.is_truthy(context.with_cancel(custom.new(nil)):done())
  end)

  it("closes in the moment of the end", function()
    local ctx, cancel = context.with_cancel(background)
    local seen = {}
    context.after_func(ctx, function()
      seen = { ctx:err(), ctx:done():closed() }
    end)
    cancel()
    assert.same({ context.Canceled, true }, seen)
  end)
end)

describe("the error objects", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("print as in Go and can be concatenated", function()
    assert.equal("context canceled", tostring(context.Canceled))
    assert.equal("context deadline exceeded", tostring(context.DeadlineExceeded))
    assert.equal("failed: context canceled", "failed: " .. context.Canceled)
    assert.equal("context deadline exceeded!", context.DeadlineExceeded .. "!")
    assert.equal("context canceled1", context.Canceled .. 1)
    assert.equal("context canceledcontext deadline exceeded", context.Canceled .. context.DeadlineExceeded)
  end)

  it("tell a timeout", function()
    assert.is_true(context.DeadlineExceeded:timeout())
    assert.is_true(context.DeadlineExceeded:temporary())
    assert.is_false(context.Canceled:timeout())
    assert.is_false(context.Canceled:temporary())
  end)

  it("are equal to themselves alone", function()
    assert.equal(context.Canceled, context.Canceled)
    assert.not_equal(context.Canceled, context.DeadlineExceeded)
    assert.is_false(context.Canceled == "context canceled") -- luacheck: ignore
  end)

  it("refuse what is not one of them", function()
    for _, wrong in ipairs { 1, "x", {}, io.stdout, background } do
      assert.matches("bad argument #1 to ", message_of(context.Canceled.timeout, wrong))
    end
    assert.is_false((pcall(context.Canceled.timeout)))
  end)
end)

describe("tostring", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("names the way from the root", function()
    local ctx = context.todo():with_cancel()
    assert.equal("context.TODO.WithCancel", tostring(ctx))
    assert.equal("context.TODO.WithCancel.WithoutCancel", tostring(ctx:without_cancel()))
    assert.equal("context.TODO.WithCancel.WithValues(2)", tostring(ctx:with_values { a = 1, b = 2 }))
    assert.equal("context.TODO.WithValues(0)", tostring(context.todo():with_values {}))
    assert.equal("context.TODO.WithCancel.WithValue(user, alice).WithCancel",
      tostring((ctx:with_value("user", "alice"):with_cancel())))
  end)

  it("shows a deadline in UTC with what remains", function()
    assert.matches("^context%.Background%.WithDeadline%(2100%-01%-01T00:00:00%.500Z %[%d+%.?%d*s%]%)$",
      tostring((background:with_deadline(4102444800.5))))
    assert.matches("^context%.Background%.WithDeadline%(1970%-01%-01T00:00:00%.000Z %[%-%d+%.?%d*s%]%)$",
      tostring((background:with_deadline(0))))
    assert.matches("^context%.Background%.WithDeadline%(1969%-12%-31T23:59:58%.750Z %[%-%d+%.?%d*s%]%)$",
      tostring((background:with_deadline(-1.25))))
    assert.matches("^context%.Background%.WithDeadline%(2026%-01%-02T15:04:05%.000Z %[%-?%d+%.?%d*s%]%)$",
      tostring((background:with_deadline(1767366245))))
    assert.matches("^context%.Background%.WithDeadline%(%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%dZ %[99%.?%d*s%]%)$",
      tostring((background:with_timeout(99.99))))
  end)

  it("shows remaining time without zeros at the end", function()
    local text = tostring((background:with_timeout(1000)))
    assert.not_matches("%.%d*0s%]", text)
    assert.not_matches("%.s%]", text)
  end)

  it("prints a deadline that is not its own as WithCancel", function()
    local parent = background:with_deadline(4102444800)
    local prefix = tostring(parent):match("^(.-) %[")
    for _, child in ipairs { (parent:with_deadline(4102444800)), (parent:with_deadline(4102444801)),
      (parent:with_timeout(math.huge)), (parent:with_deadline(math.huge)) } do
      assert.equal(1, tostring(child):find(prefix, 1, true))
      assert.matches("s%]%)%.WithCancel$", tostring(child))
    end
    assert.equal("context.Background.WithCancel", tostring((background:with_timeout(math.huge))))
    assert.equal("context.Background.WithCancel", tostring((background:with_deadline(math.huge))))
  end)

  it("shows strings, key objects and the scalars of keys, of all else the type", function()
    local function print_value(key, value)
      return tostring(background:with_value(key, value)):match("^context%.Background%.WithValue(%(.*%))$")
    end
    local key = context.key("user")
    assert.equal("(user, alice)", print_value(key, "alice"))
    assert.equal("(key, <nil>)", print_value("key", nil))
    assert.equal("(1, number)", print_value(1, 2))
    assert.equal("(-7, number)", print_value(-7, 2.5))
    assert.equal("(1.5, number)", print_value(1.5, math.huge))
    assert.equal("(true, boolean)", print_value(true, false))
    assert.equal("(false, boolean)", print_value(false, true))
    assert.equal("(table, table)", print_value({}, {}))
    assert.equal("(function, function)", print_value(print, print))
    assert.equal("(k, userdata)", print_value("k", io.stdout))
    assert.equal("(userdata, thread)", print_value(io.stdout, coroutine.create(print)))
    assert.equal("(k, user)", print_value("k", key))
    assert.equal("(, )", print_value("", ""))
    assert.equal("(a\0b, c\0d)", print_value("a\0b", "c\0d"))
    assert.equal("(table, table)",
      print_value(setmetatable({}, { __tostring = error }), setmetatable({}, { __tostring = error })))
  end)

  it("shows merges with their parents", function()
    local one = background:with_cancel()
    local merged = context.merge(one, context.todo())
    assert.equal("context.Merge(context.Background.WithCancel, context.TODO)", tostring(merged))
    assert.equal("context.Merge(context.Background.WithCancel, context.TODO).WithValue(a, b)",
      tostring(merged:with_value("a", "b")))
    assert.equal("context.Merge(context.TODO)", tostring((context.merge(context.todo()))))
    assert.equal("context.Merge(context.Merge(context.TODO), context.Background)",
      tostring((context.merge(context.merge(context.todo()), background))))
  end)

  it("works for contexts that have ended", function()
    local ctx, cancel = context.with_cancel(background)
    cancel()
    assert.equal("context.Background.WithCancel", tostring(ctx))
  end)

  it("stays small for merges that share their parents", function()
    local ctx = background:with_cancel()
    for _ = 1, 100 do
      ctx = context.merge(ctx, ctx)
    end
    assert.is_string(tostring(ctx))
    assert.is_nil(ctx:err())
  end)
end)

describe("every constructor", function()
  before_each(leaks.before)
  after_each(leaks.after)

  for name, make in pairs(constructors) do
    it(name .. " refuses a nil parent with Go's text", function()
      local expected = "^.*context_spec%.lua:%d+: cannot create context from nil parent$"
      assert.matches(expected, message_of(function() make(nil) end))
      assert.matches(expected, message_of(function() context[name]() end))
    end)

    it(name .. " refuses what is not a context", function()
      local ctx, cancel = context.with_cancel(background)
      local stop = context.after_func(background, print)
      local wrong = {
        true, false, 0, 1.5, "context", {}, print, cancel, coroutine.create(print), io.stdout, io.tmpfile(),
        ctx:done(), context.key("k"), context.Canceled, stop, setmetatable({}, { __index = function() end }),
        { done = print, err = print, value = print }, { deadline = print, err = print, value = print },
        ("x"):rep(1000), math.huge, 0 / 0,
      }
      for _, value in ipairs(wrong) do
        local message = message_of(function() make(value) end)
        assert.matches("bad argument #1 to '[%w_.?]+' %(context expected, got ", message)
      end
      stop()
    end)

    it(name .. " is a method too", function()
      local parent = background:with_cancel()
      assert.equal("function", type(parent[name]))
      assert.equal(type(context[name]), type(parent[name]))
    end)

    it(name .. " holds its parent", function()
      local weak = setmetatable({ background:with_value("deep", "down") }, { __mode = "v" })
      local ctx = make((weak[1]:with_cancel()))
      collectgarbage()
      assert.is_truthy(weak[1])
      assert.equal("down", ctx:value("deep"))
    end)
  end

  it("takes a parent from either form", function()
    local parent, cancel = background:with_cancel()
    local child = parent:with_timeout(10)
    local other = context.with_timeout(parent, 10)
    cancel()
    assert.equal(context.Canceled, child:err())
    assert.equal(context.Canceled, other:err())
  end)

  it("raises when a method is called with . instead of :", function()
    local ctx = background:with_cancel()
    for _, name in ipairs { "err", "cause", "done", "deadline", "remaining", "value", "with_cancel", "with_timeout",
      "with_deadline", "with_value", "with_values", "without_cancel", "merge", "after_func" } do
      for _, wrong in ipairs { {}, "x", 1, io.stdout, ctx:done(), context.key() } do
        assert.matches("bad argument #1 to '[%w_.?]+'", message_of(ctx[name], wrong), 1)
      end
      assert.is_string(message_of(ctx[name]))
      assert.is_string(message_of(ctx[name], nil))
    end
    assert.matches("bad argument #1", message_of(function() ctx.with_timeout(5) end))
    assert.matches("bad argument #1", message_of(function() ctx.with_value("k", "v") end))
    assert.matches("bad argument #1", message_of(function() ctx.value("k") end))
  end)

  it("tells the name of the method in a message", function()
    local ctx = background:with_cancel()
    assert.matches("bad argument #1 to 'err' %(context expected, got table%)", message_of(function() ctx.err({}) end))
    assert.matches("bad argument #1 to 'with_timeout' %(number expected, got no value%)",
      message_of(function() ctx:with_timeout() end))
  end)

  it("refuses wrong second arguments", function()
    for _, f in ipairs { context.with_deadline, context.with_timeout } do
      for _, wrong in ipairs { "soon", {}, true, print, io.stdout, background, 0 / 0, -(0 / 0) } do
        assert.matches("bad argument #2 to ", message_of(f, background, wrong))
      end
      assert.matches("bad argument #2 to ", message_of(f, background))
      assert.matches("bad argument #2 to ", message_of(f, background, nil, "cause"))
    end
    for _, wrong in ipairs { 1, "x", true, print, io.stdout, background } do
      assert.matches("bad argument #2 to .*table expected", message_of(context.with_values, background, wrong))
    end
    assert.matches("bad argument #2 to .*table expected", message_of(context.with_values, background))
    for _, wrong in ipairs { 1, "x", true, {}, io.stdout, background } do
      assert.matches("bad argument #2 to .*function expected", message_of(context.after_func, background, wrong))
    end
    assert.matches("bad argument #2 to .*function expected", message_of(context.after_func, background))
    for _, wrong in ipairs { {}, true, print } do
      assert.matches("bad argument #1 to ", message_of(context.key, wrong))
    end
  end)

  it("refuses nil and NaN as keys with fixed texts", function()
    for _, f in ipairs { context.with_value, background.with_value } do
      assert.matches("^.*context_spec%.lua:%d+: nil key$", message_of(function() f(background, nil, 1) end))
      assert.matches("^.*context_spec%.lua:%d+: nil key$", message_of(function() f(background) end))
      assert.matches("^.*context_spec%.lua:%d+: key is not comparable$",
        message_of(function() f(background, 0 / 0, 1) end))
      assert.matches("^.*context_spec%.lua:%d+: key is not comparable$",
        message_of(function() f(background, -(0 / 0), 1) end))
    end
  end)

  it("checks the parent before the key", function()
    assert.matches("cannot create context from nil parent$", message_of(function() context.with_value(nil, nil) end))
  end)

  it("takes any number for a time", function()
    local numbers = { 0, -0.0, 1e-300, -1e-300, 1e300, -1e300, 1e18, -1e18, 9.3e9, math.maxinteger, math.mininteger,
      math.huge, -math.huge, 2 ^ 63, -2 ^ 63, 2 ^ 53, "5", "0x10" }
    for _, number in ipairs(numbers) do
      for _, make in ipairs { context.with_timeout, context.with_deadline } do
        local ctx, cancel = make(background, number)
        local value = tonumber(number)
        if value <= 0 then
          assert.equal(context.DeadlineExceeded, ctx:err(), tostring(number))
        end
        if value == math.huge then
          assert.is_nil(ctx:deadline())
          assert.is_nil(ctx:remaining())
        else
          assert.is_number(ctx:deadline())
          assert.is_number(ctx:remaining())
          assert.is_true(ctx:remaining() >= 0)
        end
        assert.is_string(tostring(ctx))
        assert.is_boolean(ctx:done():wait(0))
        cancel()
        assert.is_truthy(ctx:err())
      end
    end
  end)

  it("refuses a cancel function among the arguments of merge and says why", function()
    local message = message_of(function()
      context.merge(background, context.with_timeout(background, 1))
    end)
    assert.matches("cancel function", message)
    assert.matches("bad argument #3 to ", message)
    assert.matches("cancel function", message_of(function() background:merge(background:with_cancel()) end))
    assert.matches("cancel function", message_of(function() context.merge(select(2, background:with_cancel())) end))
  end)

  it("refuses nil and wrong values anywhere in merge", function()
    assert.matches("cannot create context from nil parent", message_of(context.merge, background, nil))
    assert.matches("cannot create context from nil parent", message_of(context.merge, background, nil, background))
    assert.matches("bad argument #2 to .*context expected", message_of(context.merge, background, io.stdout))
    assert.matches("bad argument #3 to .*context expected", message_of(context.merge, background, background, 1))
  end)

  it("leaves a cancel function that wants no self", function()
    local ctx, cancel = context.with_cancel(background)
    cancel(false)
    assert.is_false(ctx:cause())
  end)

  it("has contexts that cannot be written to", function()
    local ctx = background:with_cancel()
    assert.is_false((pcall(function() ctx.field = 1 end)))
    assert.is_nil(ctx.field)
    assert.is_nil(ctx[1])
    assert.is_false((pcall(setmetatable, ctx, {})))
    assert.is_not_table(getmetatable(ctx))
  end)
end)

describe("cause, now, stats", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("cause refuses what is not a context", function()
    for _, wrong in ipairs { 1, "x", {}, io.stdout, print, true } do
      assert.matches("bad argument #1 to ", message_of(context.cause, wrong))
    end
    assert.is_false((pcall(context.cause)))
    assert.is_false((pcall(context.cause, nil)))
  end)

  it("now is the time in Unix seconds", function()
    local now = context.now()
    assert.equal("float", math.type(now))
    assert.is_true(math.abs(now - os.time()) < 5)
    assert.is_true(context.now() >= now - 5)
  end)

  it("stats counts what there is", function()
    local parent, cancel = context.with_cancel(background)
    local timed = parent:with_timeout(100)
    local value = timed:with_value("k", 1)
    local stop = context.after_func(value, print)
    assert.equal(3, leaks.more("contexts"))
    assert.equal(3, leaks.more("live"))
    assert.equal(1, leaks.more("timers"))
    assert.equal(1, leaks.more("callbacks"))
    assert.equal(0, leaks.more("waiters"))
    assert.is_true(stop())
    assert.equal(0, leaks.more("callbacks"))
    cancel()
    assert.equal(3, leaks.more("contexts"))
    assert.equal(0, leaks.more("live"))
    assert.equal(0, leaks.more("timers"))
    assert.truthy(value)
  end)

  it("has nothing left in a parent after cancel, expiry and stop", function()
    local parent = background:with_cancel()
    for _ = 1, 1000 do
      local _, cancel = parent:with_cancel()
      cancel()
      _, cancel = parent:with_timeout(3600)
      cancel()
      parent:with_timeout(0)
      context.after_func(parent, print)()
    end
    assert.equal(1, leaks.more("live"))
    assert.equal(0, leaks.more("timers"))
    assert.equal(0, leaks.more("callbacks"))
  end)

  it("_VERSION is a string", function()
    assert.is_string(context._VERSION)
  end)
end)
