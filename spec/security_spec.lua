-- The claims of doc/security.md, one by one.

local context = require "lcontext"
local busy = require "spec.support.busy"
local leaks = require "spec.support.leaks"
local threads = require "spec.support.threads"

local background = context.background()

-- What a script gets that is not trusted: the safe part of the standard library, and what it is handed.
local function run_untrusted(source, handed)
  local environment = setmetatable(handed, { __index = {
    assert = assert, error = error, ipairs = ipairs, next = next, pairs = pairs, pcall = pcall, print = print,
    select = select, tostring = tostring, type = type, xpcall = xpcall, getmetatable = getmetatable,
    setmetatable = setmetatable, rawget = rawget, rawset = rawset, rawequal = rawequal, rawlen = rawlen,
    string = string, table = table, math = math, coroutine = coroutine, collectgarbage = collectgarbage,
  } })
  return assert(load(source, "=untrusted", "t", environment))
end

describe("a script that holds a context", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("finds nothing on it that cancels", function()
    local ctx = context.with_cancel(background)
    run_untrusted([[
      assert(type(getmetatable(ctx)) == "string")
      assert(not pcall(setmetatable, ctx, {}))
      assert(not pcall(function() ctx.err = print end))
      assert(not pcall(rawset, ctx, "err", print))
      assert(not pcall(next, ctx))
      for _, name in ipairs { "cancel", "close", "__gc", "__close", "parent", "children", "__index" } do
        assert(ctx[name] == nil and ctx:done()[name] == nil)
      end
      assert(type(getmetatable(ctx:done())) == "string")
      ctx:with_cancel():after_func(function() end)
      do local child <close>, cancel = ctx:with_cancel() cancel("mine") end
      do local child <close> = ctx:with_timeout(0) end
    ]], { ctx = ctx })()
    assert.is_nil(ctx:err())
  end)

  it("cannot end a value layer's context by <close>", function()
    local ctx = context.with_cancel(background)
    run_untrusted("do local c <close> = ctx end", { ctx = ctx:with_value("user", "alice") })()
    assert.is_nil(ctx:err())
  end)

  it("cannot end, inside ctx:pcall, what its caller holds", function()
    local above = context.with_cancel(background)
    local other = context.with_cancel(background)
    local ctx = context.merge(above:with_value("k", 1):with_cancel(), other)
    local script = run_untrusted([[
      for _, c in ipairs { ctx, above, other } do
        do local closed <close> = c end
        coroutine.wrap(function() local closed <close> = c end)()
        pcall(function() local closed <close> = c error("x") end)
      end
      do local own <close> = ctx:with_cancel() own_context = own end
      return own_context:err() ~= nil
    ]], { ctx = ctx, above = above, other = other })
    local guarded = ctx:with_timeout(60)
    assert.same({ true, true }, { guarded:pcall(script) })
    assert.is_nil(ctx:err())
    assert.is_nil(above:err())
    assert.is_nil(other:err())
    do local _ <close> = ctx end -- its owner can
    assert.equal(context.Canceled, ctx:err())
    assert.equal(context.Canceled, guarded:err())
  end)

  it("leaves closing to the owner while a guarded call is suspended", function()
    local ctx = context.with_cancel(background)
    local co = coroutine.create(function()
      return ctx:pcall(function()
        coroutine.yield()
        return "went on"
      end)
    end)
    coroutine.resume(co)
    do local _ <close> = ctx end
    assert.equal(context.Canceled, ctx:err())
    local resumed, ok, err = coroutine.resume(co)
    assert.is_true(resumed)
    assert.is_false(ok)
    assert.equal(context.Canceled, err)
  end)

  it("cannot make it end later, or with another cause", function()
    local ctx, cancel = context.with_timeout(background, 60)
    local deadline = ctx:deadline()
    run_untrusted([[
      assert(ctx:with_timeout(1e9):deadline() == ctx:deadline())
      assert(ctx:with_cancel():deadline() == ctx:deadline())
      local free = ctx:without_cancel()
      assert(free:deadline() == nil and free:done() == nil and free:err() == nil)
    ]], { ctx = ctx })()
    assert.equal(deadline, ctx:deadline())
    cancel("why")
    run_untrusted([[ local c, cancel = ctx:with_cancel() cancel("mine") assert(c:cause() == "why") ]], { ctx = ctx })()
    assert.equal("why", ctx:cause())
  end)

  it("reads no values under keys that it does not have", function()
    local key = context.key("password")
    local secret = {}
    local ctx = background:with_value(key, secret):with_value({}, "table"):with_value(print, "function")
    run_untrusted([[
      for _, key in ipairs { "password", "key", "", 0, 1, true, false, {}, print, ctx, make_key("password") } do
        assert(ctx:value(key) == nil)
      end
      assert(not tostring(ctx):find("0x"))
    ]], { ctx = ctx, make_key = context.key, print = error })()
    assert.equal("context.Background.WithValue(password, table).WithValue(table, number)",
      tostring(background:with_value(key, secret):with_value({}, 1)))
  end)

  it("does not change what others see", function()
    local ctx = background:with_value("user", "alice")
    run_untrusted([[ assert(ctx:with_value("user", "mallory"):value("user") == "mallory") ]], { ctx = ctx })()
    assert.equal("alice", ctx:value("user"))
  end)
end)

describe("a script that has the module", function()
  it("does not guess tokens", function()
    local kept = {}
    for i = 1, 100 do
      kept[i] = context.with_cancel(background)
      kept[i]:share()
    end
    local near = kept[1]:share()
    for i = 1, 1000 do
      assert.is_nil((context.adopt(near + i)))
      assert.is_nil((context.adopt(math.random(0, (1 << 53) - 1))))
      assert.is_nil((context.adopt(i)))
    end
  end)

  it("gets the right to cancel by a token only if it was put in: not by <close> either", function()
    local ctx, cancel = context.with_cancel(background)
    local closed_there = threads.start(function(token)
      local _ <close> = require("lcontext").adopt(token)
    end, ctx:share())
    closed_there:join()
    assert.is_nil(ctx:err())
    local canceled_there = threads.start(function(token)
      local _ <close> = require("lcontext").adopt(token)
    end, ctx:share(cancel))
    canceled_there:join()
    assert.equal(context.Canceled, ctx:err())
  end)
end)

describe("a hostile script inside ctx:pcall", function()
  before_each(leaks.before)
  after_each(leaks.after)

  local function stopped(source)
    local ctx <close> = context.with_timeout(background, 0.02)
    return ctx:pcall(run_untrusted(source, { ctx = ctx }))
  end

  it("cannot go on", function()
    for _, source in ipairs {
      "while true do end",
      "while true do pcall(function() while true do end end) end",
      "while true do xpcall(function() while true do end end, function() while true do end end) end",
      "while true do coroutine.wrap(function() while true do end end)() end",
      "local function f() local c <close> = setmetatable({}, { __close = function() f() end })\n" ..
        "while true do end end f()",
      "setmetatable({}, { __index = function(t, k) while true do end end }).x()",
      "table.sort({ 1, 2, 3 }, function() while true do end end)",
      "string.gsub('x', 'x', function() while true do end end)",
    } do
      local ok, err = stopped(source)
      assert.is_false(ok, source)
      assert.equal(context.DeadlineExceeded, err, source)
    end
  end)

  it("cannot pass for the library for longer than the grace time", function()
    local file = debug.getinfo(require("lcontext.loop").run, "S").source
    local forged = assert(load("while true do pcall(function() while true do end end) end", file))
    local settings = context.interrupt {}
    context.interrupt { grace = 0.02 }
    local ctx <close> = context.with_timeout(background, 0.02)
    local ok, err = ctx:pcall(forged)
    context.interrupt(settings)
    assert.is_false(ok)
    assert.equal(context.DeadlineExceeded, err)
  end)

  it("cannot stop its caller with an error of its own", function()
    local outer <close> = context.with_timeout(background, 60)
    local ok, inner_ok, err, third = outer:pcall(function()
      local inner <close> = outer:with_timeout(50)
      return inner:pcall(error, context.DeadlineExceeded)
    end)
    assert.is_true(ok)
    assert.is_false(inner_ok)
    assert.equal(context.DeadlineExceeded, err)
    assert.is_nil(third) -- its own error: no traceback of a stop
    assert.is_nil(outer:err())
  end)

  it("leaves nothing armed", function()
    stopped("while true do end")
    local kept = busy.in_time(function(seconds)
      local kept = {}
      local ctx <close> = context.with_timeout(background, seconds)
      ctx:pcall(function()
        local co = coroutine.create(function() for i = 1, math.huge do coroutine.yield(i) end end)
        coroutine.resume(co)
        kept.co = co
        while true do end
      end)
      return kept.co and kept
    end)
    assert.is_nil(debug.gethook())
    assert.is_nil(debug.gethook(kept.co))
    assert.same({ true, 2 }, { coroutine.resume(kept.co) })
  end)
end)
