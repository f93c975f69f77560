-- Contexts that more than one Lua state knows. The other states are those of luv's threads, which run real Lua in
-- real threads; more threads than that are in spec/host/share_test.c.

local context = require "lcontext"
local busy = require "spec.support.busy"
local leaks = require "spec.support.leaks"
local threads = require "spec.support.threads"

local background = context.background()

describe("a token", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("is an integer below 2^53, the same each time", function()
    local ctx, cancel = context.with_cancel(background)
    local token = context.share(ctx)
    assert.equal("integer", math.type(token))
    assert.is_true(token > 0 and token < 2 ^ 53)
    assert.equal(token, ctx:share())
    assert.equal(ctx:share(cancel), ctx:share(cancel))
    assert.not_equal(token, ctx:share(cancel))
  end)

  it("is another one for each context", function()
    local seen, kept = {}, {}
    for i = 1, 1000 do
      kept[i] = context.with_cancel(background)
      local token = kept[i]:share()
      assert.is_nil(seen[token])
      seen[token] = true
    end
    for i = 1, 1000, 7 do
      assert.equal(kept[i], context.adopt(kept[i]:share()))
    end
  end)

  it("gives the same context back in the same state", function()
    local ctx, cancel = context.with_cancel(background)
    assert.equal(ctx, context.adopt(ctx:share()))
    assert.is_nil(select(2, context.adopt(ctx:share())))
    local again, cancel_again = context.adopt(ctx:share(cancel))
    assert.equal(ctx, again)
    cancel_again("why")
    assert.equal("why", ctx:cause())
    assert.equal(background, context.adopt(background:share()))
    assert.equal(context.todo(), context.adopt(context.todo():share()))
  end)

  it("that nobody was given is unknown", function()
    for _, token in ipairs { 1, 0, -1, 12345, 1 << 52, math.maxinteger, math.mininteger, 3.0 } do
      local ctx, err = context.adopt(token)
      assert.is_nil(ctx)
      assert.equal("no context has this token", err)
    end
    assert.error_matches(function() context.adopt("x") end, "number expected")
    assert.error_matches(function() context.adopt(1.5) end, "no integer representation")
    assert.error_matches(function() context.adopt() end, "number expected")
  end)

  it("is stale when its context has gone", function()
    local token = background:with_cancel():share()
    collectgarbage()
    collectgarbage()
    assert.is_nil((context.adopt(token)))
  end)

  it("of a context that has ended is good for as long as that is held", function()
    local ctx, cancel = context.with_cancel(background)
    cancel()
    assert.equal(ctx, context.adopt(ctx:share()))
  end)

  it("gives the right to cancel only with a cancel function of this context or of one above", function()
    local above, cancel_above = context.with_cancel(background)
    local ctx = above:with_value("k", 1)
    local _, cancel_other = context.with_cancel(background)
    local _, cancel_below = ctx:with_cancel()
    for _, wrong in ipairs { cancel_other, cancel_below, print, 5, {}, true } do
      assert.error_matches(function() ctx:share(wrong) end, "the cancel function of this context expected")
    end
    local adopted, cancel = context.adopt(ctx:share(cancel_above))
    assert.equal(ctx, adopted)
    cancel()
    assert.equal(context.Canceled, above:err())
  end)

  it("is for contexts only", function()
    for _, wrong in ipairs { {}, 5, "x" } do
      assert.error_matches(function() context.share(wrong) end, "context expected")
    end
  end)
end)

describe("in another thread", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("it is the same context: values, deadline, remaining, err", function()
    local ctx = background:with_value("user", "alice"):with_timeout(1000):with_value(1, 2.5)
    local user, number, deadline, remaining, err, printed = threads.call(function(token)
      local adopted = require("lcontext").adopt(token)
      return adopted:value("user"), adopted:value(1.0), adopted:deadline(), adopted:remaining(), adopted:err(),
        tostring(adopted)
    end, ctx:share())
    assert.equal("alice", user)
    assert.equal(2.5, number)
    assert.equal(ctx:deadline(), deadline)
    assert.is_true(remaining > 0 and remaining <= 1000)
    assert.is_nil(err)
    assert.matches("^context.Background.WithValue%(user, alice%).WithDeadline%(.*%).WithValue%(1, number%)$", printed)
  end)

  it("values of scalars under scalars are seen, no others", function()
    local key = context.key("mine")
    local t = {}
    local ctx = background:with_values {
      s = "string", i = 7, f = 1.5, b = false, [1] = "one", [2.5] = "half", [true] = "yes",
      table = t, func = print, thread = coroutine.create(print), key = key,
      [key] = "under a key", [t] = "under a table",
    }
    local seen = threads.call(function(token)
      local adopted = require("lcontext").adopt(token)
      local list = {}
      for _, name in ipairs { "s", "i", "f", "b", 1, 2.5, true, "table", "func", "thread", "key", "mine", "other" } do
        list[#list + 1] = tostring(name) .. "=" .. tostring(adopted:value(name))
      end
      return table.concat(list, " ")
    end, ctx:share())
    assert.equal("s=string i=7 f=1.5 b=false 1=one 2.5=half true=yes table=nil func=nil thread=nil key=nil " ..
      "mine=nil other=nil", seen)
    assert.equal(t, ctx:value("table"))
    assert.equal("under a key", ctx:value(key))
  end)

  it("a nil there masks what is above", function()
    local ctx = background:with_value("k", "above"):with_value("k", nil):with_value("t", "above"):with_value("t", {})
    local k, t = threads.call(function(token)
      local adopted = require("lcontext").adopt(token)
      return adopted:value("k"), adopted:value("t")
    end, ctx:share())
    assert.is_nil(k)
    assert.is_nil(t)
  end)

  it("a cancel there wakes who waits here, with its cause", function()
    local ctx, cancel = context.with_cancel(background)
    local thread = threads.start(function(token)
      local _, cancel_there = require("lcontext").adopt(token)
      cancel_there("from there")
    end, ctx:share(cancel))
    assert.is_true(ctx:done():wait(60))
    assert.equal("from there", ctx:cause())
    assert.equal(context.Canceled, ctx:err())
    thread:join()
  end)

  it("a cancel here wakes who waits there, and runs its callbacks", function()
    local ctx, cancel = context.with_cancel(background)
    local ready, tell = context.with_cancel(background)
    local answer, say = context.with_cancel(background)
    local thread = threads.start(function(token, ready_token, answer_token)
      local there = require("lcontext")
      local adopted = there.adopt(token)
      local _, is_ready = there.adopt(ready_token)
      local _, reply = there.adopt(answer_token)
      local ran = 0
      adopted:after_func(function() ran = ran + 1 end)
      is_ready()
      local woken = adopted:done():wait(60)
      reply(("%s %d %s %s"):format(woken, ran, adopted:err(), adopted:cause()))
    end, ctx:share(), ready:share(tell), answer:share(say))
    assert.is_true(ready:done():wait(60))
    cancel(42)
    assert.is_true(answer:done():wait(60))
    assert.equal("true 1 context canceled 42", answer:cause())
    thread:join()
  end)

  it("a child made there ends with its parent here, and its deadline holds there", function()
    local ctx, cancel = context.with_cancel(background)
    local ready, tell = context.with_cancel(background)
    local answer, say = context.with_cancel(background)
    local thread = threads.start(function(token, ready_token, answer_token)
      local there = require("lcontext")
      local child = there.adopt(token):with_timeout(1000)
      local soon = there.adopt(token):with_timeout(0.01)
      local woken = soon:done():wait(60)
      select(2, there.adopt(ready_token))()
      child:done():wait(60)
      select(2, there.adopt(answer_token))(("%s %s %s"):format(woken, soon:err(), child:cause()))
    end, ctx:share(), ready:share(tell), answer:share(say))
    assert.is_true(ready:done():wait(60))
    cancel("here")
    assert.is_true(answer:done():wait(60))
    assert.equal("true context deadline exceeded here", answer:cause())
    thread:join()
  end)

  it("without the right to cancel there is no cancel function, and closing a child leaves the parent alone", function()
    local ctx = context.with_cancel(background)
    local results = threads.call(function(token)
      local there = require("lcontext")
      local adopted, cancel = there.adopt(token)
      do local _ <close> = adopted:with_cancel() end
      return tostring(cancel) .. " " .. tostring(adopted:err())
    end, ctx:share())
    assert.equal("nil nil", results)
    assert.is_nil(ctx:err())
  end)

  it("causes that are objects read as they print, scalars as they are", function()
    local printable = setmetatable({}, { __tostring = function() return "printed" end })
    local failing = setmetatable({}, { __tostring = function() error("no") end })
    local cases = { { printable, "printed" }, { failing, "table" }, { 5, 5 }, { false, false }, { "s", "s" } }
    for _, case in ipairs(cases) do
      local ctx, cancel = context.with_cancel(background)
      local before, cancel_before = context.with_cancel(background)
      cancel_before(case[1])
      local token = ctx:share()
      cancel(case[1])
      for _, t in ipairs { token, before:share() } do
        assert.equal(case[2], threads.call(function(there) return require("lcontext").adopt(there):cause() end, t))
      end
      assert.equal(case[1], ctx:cause())
    end
    local plain, cancel = context.with_cancel(background)
    cancel()
    assert.equal("context canceled", threads.call(function(token)
      return tostring(require("lcontext").adopt(token):cause())
    end, plain:share()))
  end)

  it("causes of deadlines and of merges cross, too", function()
    local why = setmetatable({}, { __tostring = function() return "too slow" end })
    local ctx = context.merge((background:with_timeout(0.01, why)), (background:with_cancel())):with_cancel()
    assert.is_true(ctx:done():wait(60))
    assert.equal("too slow", threads.call(function(token)
      return require("lcontext").adopt(token):cause()
    end, ctx:share()))
  end)

  it("a context whose maker has gone lives on there, and its objects read as nil", function()
    local answer, say = context.with_cancel(background)
    local taken, tell = context.with_cancel(background)
    local thread = threads.start(function(answer_token, taken_token)
      local there = require("lcontext")
      local ctx, cancel = there.background():with_value("t", {}):with_value("s", "kept"):with_timeout(1000)
      local taken_here = there.adopt(taken_token)
      select(2, there.adopt(answer_token))(ctx:share(cancel))
      taken_here:done():wait(60)
    end, answer:share(say), taken:share())
    assert.is_true(answer:done():wait(60))
    local ctx, cancel = context.adopt(answer:cause())
    tell()
    thread:join()
    assert.is_nil(ctx:err())
    assert.equal("kept", ctx:value("s"))
    assert.is_nil(ctx:value("t"))
    assert.is_true(ctx:remaining() > 0)
    cancel("done")
    assert.equal("done", ctx:cause())
  end)
end)

describe("a shared context that is dropped here", function()
  before_each(leaks.before)
  after_each(leaks.after)

  -- A thread that holds ctx until it is told to let go.
  local function held_elsewhere(token)
    local ready, tell = context.with_cancel(background)
    local over, finish = context.with_cancel(background)
    local thread = threads.start(function(its_token, ready_token, over_token)
      local there = require("lcontext")
      local adopted = there.adopt(its_token)
      local is_over = there.adopt(over_token)
      select(2, there.adopt(ready_token))()
      is_over:done():wait(60)
      adopted:err()
    end, token, ready:share(tell), over:share())
    assert.is_true(ready:done():wait(60))
    return function()
      finish()
      thread:join()
    end
  end

  it("comes back as long as it is held elsewhere: its scalars, its end, its callbacks", function()
    local token, let_go
    local ran = 0
    do
      local ctx, cancel = background:with_values({ s = "kept", t = {} }):with_cancel()
      ctx:after_func(function() ran = ran + 1 end)
      token = ctx:share(cancel)
      let_go = held_elsewhere(token)
    end
    for _ = 1, 5 do collectgarbage() end
    do
      local ctx, cancel = context.adopt(token)
      assert.equal("kept", ctx:value("s"))
      assert.is_nil(ctx:value("t")) -- it went with the last context of this state that had it
      cancel(setmetatable({}, { __tostring = function() return "a cause" end }))
    end
    assert.equal(1, ran)
    for _ = 1, 5 do collectgarbage() end
    assert.equal("a cause", context.adopt(token):cause())
    let_go()
  end)

  it("is collected when the other has let go, although its values refer to it", function()
    local before = context.stats().contexts
    do
      local t = {}
      t.ctx = background:with_value("t", t):with_cancel()
      local let_go = held_elsewhere(t.ctx:share())
      t = nil -- luacheck: ignore 311
      for _ = 1, 5 do collectgarbage() end
      let_go()
    end
    busy.settles(function()
      for _ = 1, 5 do collectgarbage() end
      return context.stats().contexts <= before
    end)
    assert.equal(before, context.stats().contexts)
  end)
end)
