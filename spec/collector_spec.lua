local context = require "lcontext"
local busy = require "spec.support.busy"
local child_process = require "spec.support.child"
local leaks = require "spec.support.leaks"
local custom = require "spec.support.custom"

local background = context.background()

local function collect()
  collectgarbage()
  collectgarbage()
end

-- All of this in both modes of the collector.
for _, mode in ipairs { "incremental", "generational" } do
  describe("in " .. mode .. " mode", function()
    before_each(function()
      leaks.before()
      collectgarbage(mode)
    end)
    after_each(leaks.after)

    describe("the collector", function()
      it("ends what nothing can reach", function()
        context.with_cancel(background)
        context.with_timeout(background, 1000)
        context.merge((context.with_cancel(background)), background)
        assert.equal(4, leaks.more("live"))
        collect()
        assert.equal(0, leaks.more("contexts"))
        assert.equal(0, leaks.more("timers"))
      end)

      it("unlinks it from a live parent", function()
        local parent = background:with_cancel()
        for _ = 1, 1000 do
          parent:with_timeout(1000):with_value("k", {}):with_cancel()
        end
        collect()
        assert.equal(1, leaks.more("contexts"))
        assert.equal(0, leaks.more("timers"))
        assert.is_nil(parent:err())
      end)

      it("leaves the ancestors of a reachable descendant alone", function()
        local leaf = background:with_cancel():with_timeout(100):with_value("k", 1):merge(background):with_cancel()
        collect()
        assert.equal(5, leaks.more("live"))
        assert.equal(1, leaks.more("timers"))
        assert.is_nil(leaf:err())
        assert.is_number(leaf:deadline())
      end)

      it("leaves alone what has a Done alone", function()
        local done = background:with_timeout(1000):with_value("k", 1):done()
        collect()
        assert.is_false(done:closed())
        assert.is_number(done:timeout())
        local short = busy.in_time(function(seconds)
          local short = background:with_timeout(seconds):done()
          collect()
          return not short:closed() and short
        end)
        assert.is_true(short:wait(60))
      end)

      it("leaves alone what has a cancel function alone", function()
        local cancel = select(2, context.with_cancel(background))
        collect()
        assert.equal(1, leaks.more("live"))
        cancel({ "cause" })
        assert.equal(0, leaks.more("live"))
      end)

      it("leaves alone what a suspended coroutine waits for", function()
        local co = coroutine.wrap(function()
          return background:with_timeout(1000):done():wait()
        end)
        co()
        collect()
        assert.equal(1, leaks.more("live"))
        co = nil -- luacheck: ignore
        collect()
        assert.equal(0, leaks.more("live"))
      end)

      it("ends descendants that are garbage with their parents, all with Canceled", function()
        local seen = {}
        local parent = background:with_cancel()
        local child = parent:with_cancel()
        for _, ctx in ipairs { child, parent } do
          ctx:with_cancel():after_func(function() seen[#seen + 1] = ctx:err() end)
        end
        parent = nil -- luacheck: ignore
        child = nil -- luacheck: ignore
        collect()
        assert.equal(0, leaks.more("live"))
        context.dispatch()
        assert.same({ context.Canceled, context.Canceled }, seen)
      end)
    end)

    describe("cycles are garbage", function()
      local function gone(make)
        local weak = setmetatable({}, { __mode = "v" })
        weak[1] = make()
        collect()
        assert.is_nil(weak[1])
        assert.equal(0, leaks.more("contexts"))
        assert.equal(0, leaks.more("callbacks"))
      end

      it("through a value", function()
        gone(function()
          local t = {}
          t.ctx = background:with_value("k", t):with_cancel()
          return t
        end)
        gone(function()
          local t = {}
          t.ctx = background:with_values { k = t, l = { t } }
          return t
        end)
      end)

      it("through a key", function()
        gone(function()
          local t = {}
          t.ctx = background:with_value(t, 1):with_cancel()
          return t
        end)
      end)

      it("through a key and its value", function()
        gone(function()
          local t = {}
          t.ctx = background:with_value(t, t):with_cancel()
          return t
        end)
      end)

      it("through a cause", function()
        gone(function()
          local t = {}
          local ctx, cancel = context.with_cancel(background)
          t.ctx = ctx
          cancel(t)
          return t
        end)
      end)

      it("through a cause that a deadline would give", function()
        gone(function()
          local t = {}
          t.ctx, t.cancel = context.with_timeout(background, 1000, t)
          return t
        end)
      end)

      it("through the cause of a child", function()
        gone(function()
          local t = {}
          local ctx, cancel = context.with_cancel(background)
          t.child = ctx:with_value("k", 1):with_cancel()
          cancel(t)
          return t
        end)
      end)

      it("through a custom parent", function()
        gone(function()
          local own = background:with_cancel()
          local object = custom.new(own:done())
          object.child = context.with_cancel(object)
          object.other = context.with_value(object, "k", object)
          return object
        end)
      end)

      it("through a Done", function()
        gone(function()
          local t = {}
          t.done = background:with_value("k", t):with_cancel():done()
          t.fd = t.done:pollfd()
          return t
        end)
      end)

      it("through a suspended coroutine", function()
        gone(function()
          local t = {}
          t.co = coroutine.create(function()
            local ctx = background:with_value("k", t):with_cancel()
            ctx:done():wait()
          end)
          coroutine.resume(t.co)
          return t
        end)
      end)

      it("through a stopped callback", function()
        gone(function()
          local t = {}
          t.ctx = background:with_timeout(1000)
          t.stop = t.ctx:after_func(function() return t end)
          t.stop()
          return t
        end)
      end)

      it("through a callback", function()
        local ran = 0
        local t = { ctx = background:with_cancel() }
        t.stop = t.ctx:after_func(function()
          ran = ran + 1
          assert(t.ctx:err() == context.Canceled)
        end)
        t = nil -- luacheck: ignore
        collect()
        assert.equal(0, leaks.more("live"))
        context.dispatch()
        assert.equal(1, ran)
      end)

      it("through a callback and a family that is all garbage", function()
        local ran = 0
        do
          local parent, cancel = context.with_cancel(background)
          local child = parent:with_value("k", 1):with_cancel()
          child:after_func(function() ran = ran + 1 return parent, cancel, child end)
          parent:after_func(function() ran = ran + 1 return child end)
          context.merge(child, (background:with_cancel())):after_func(function() ran = ran + 1 return child end)
        end
        collect()
        collect()
        assert.equal(0, leaks.more("live"))
        context.dispatch()
        assert.equal(3, ran)
      end)
    end)

    describe("a callback", function()
      it("keeps its context while that has a deadline, and runs", function()
        local ran
        busy.in_time(function(seconds)
          ran = 0
          background:with_timeout(seconds):after_func(function() ran = ran + 1 end)
          collect()
          local live = leaks.more("live")
          assert.equal(1, context.dispatch(60))
          return live == 1
        end)
        assert.equal(1, ran)
      end)

      it("keeps its context while an ancestor has a deadline", function()
        local seen
        busy.in_time(function(seconds)
          seen = nil
          background:with_timeout(seconds, { "why" }):with_value("k", 1):with_cancel():after_func(function()
            seen = true
          end)
          collect()
          local contexts, live = leaks.more("contexts"), leaks.more("live")
          assert.equal(1, context.dispatch(60))
          return live == 3 and contexts == 3
        end)
        assert.is_true(seen)
      end)

      it("keeps its context while an ancestor is live, and runs with its end", function()
        local root, cancel = context.with_cancel(background)
        local ran = 0
        root:with_cancel():after_func(function() ran = ran + 1 end)
        root:with_value("k", 1):with_cancel():with_cancel():after_func(function() ran = ran + 1 end)
        collect()
        assert.equal(0, context.dispatch())
        assert.equal(5, leaks.more("contexts"))
        cancel()
        assert.equal(2, ran)
      end)

      it("keeps its context while only a relative of it can be reached", function()
        local ran = 0
        local sibling
        do
          local root = background:with_cancel()
          sibling = root:with_cancel():with_value("k", 1)
          root:with_cancel():with_cancel():after_func(function() ran = ran + 1 end)
        end
        collect()
        assert.equal(0, context.dispatch())
        assert.equal(0, ran)
        assert.is_nil(sibling:err())
        sibling = nil -- luacheck: ignore
        collect()
        collect()
        context.dispatch()
        assert.equal(1, ran)
      end)

      it("keeps its context while the Done of an ancestor can be reached", function()
        local ran = 0
        local done
        do
          local root = background:with_cancel()
          done = root:done()
          root:with_cancel():after_func(function() ran = ran + 1 end)
        end
        collect()
        assert.equal(0, context.dispatch())
        assert.is_false(done:closed())
        done = nil -- luacheck: ignore
        collect()
        collect()
        context.dispatch()
        assert.equal(1, ran)
      end)

      it("keeps a merge while one of its parents is live", function()
        local one, cancel = context.with_cancel(background)
        local ran = 0
        local ctx = context.merge(background, (background:with_cancel()), one)
        ctx:with_cancel():after_func(function() ran = ran + 1 end)
        ctx = nil -- luacheck: ignore
        collect()
        assert.equal(0, context.dispatch())
        cancel()
        assert.equal(1, ran)
      end)

      it("keeps what stands for a custom context while its Done can close", function()
        local own, cancel = context.with_cancel(background)
        local ran = 0
        context.with_cancel(custom.new(own:done())):after_func(function() ran = ran + 1 end)
        context.after_func(custom.new(own:done()), function() ran = ran + 1 end)
        collect()
        assert.equal(0, context.dispatch())
        cancel()
        assert.equal(2, ran)
      end)

      it("keeps nothing that only an unending context is above", function()
        local live = background:with_cancel()
        local ran = 0
        live:without_cancel():with_cancel():after_func(function() ran = ran + 1 end)
        context.with_cancel(custom.new(nil)):after_func(function() ran = ran + 1 end)
        collect()
        context.dispatch()
        assert.equal(2, ran)
        assert.is_nil(live:err())
      end)

      it("runs when the collector ends a context, at the next dispatch point", function()
        local order = {}
        do
          local ctx = background:with_cancel()
          for i = 1, 5 do
            ctx:after_func(function() order[#order + 1] = i end)
          end
        end
        collect()
        assert.same({}, order)
        assert.equal(5, context.dispatch())
        assert.same({ 1, 2, 3, 4, 5 }, order)
        assert.equal(0, leaks.more("callbacks"))
      end)

      it("that was stopped after the collector ended its context does not run", function()
        local ran = false
        local stop = background:with_cancel():after_func(function() ran = true end)
        collect()
        assert.is_true(stop())
        assert.is_false(stop())
        assert.equal(0, context.dispatch())
        assert.is_false(ran)
      end)

      it("lets its context go when it is stopped", function()
        local root = background:with_cancel()
        local stop = root:with_cancel():after_func(print)
        local late = background:with_timeout(1000):after_func(print)
        collect()
        assert.equal(3, leaks.more("contexts"))
        stop()
        late()
        collect()
        assert.equal(1, leaks.more("contexts"))
        assert.is_nil(root:err())
      end)

      it("stays when its context gets another and that is stopped", function()
        local root, cancel = context.with_cancel(background)
        local ran = 0
        do
          local ctx = root:with_cancel()
          ctx:after_func(function() ran = ran + 1 end)
          ctx:after_func(function() ran = ran + 10 end)()
        end
        collect()
        cancel()
        assert.equal(1, ran)
      end)
    end)

    describe("a finalizer", function()
      -- The object is made before its fields or after: so its finalizer runs after theirs, or before.
      local function finalized(later, fill, finalize)
        do
          local object = {}
          if later then
            fill(object)
          end
          setmetatable(object, { __gc = finalize })
          if not later then
            fill(object)
          end
        end
        collect()
      end

      for _, later in ipairs { false, true } do
        local when = later and "before those of its contexts" or "after those of its contexts"

        it("may use contexts, " .. when, function()
          local ok, message
          finalized(later, function(object)
            object.ctx, object.cancel = background:with_value("k", "v"):with_timeout(1000)
            object.child = object.ctx:with_cancel()
            object.done = object.ctx:done()
            object.stop = object.ctx:after_func(function() end)
            object.stop()
            object.key = context.key("name")
          end, function(object)
            ok, message = pcall(function()
              local ctx = object.ctx
              local err = ctx:err()
              assert(err == nil or err == context.Canceled)
              assert(ctx:done() == object.done)
              assert(object.done:closed() == (err ~= nil))
              if err then
                assert(object.done:wait())
                assert(context.select(object.done) == object.done)
                assert(object.child:err() == err)
                assert(ctx:cause() == err)
              else
                assert(not object.done:wait(0))
              end
              ctx:deadline()
              ctx:remaining()
              ctx:value("k")
              tostring(ctx)
              tostring(object.child)
              object.done:timeout()
              object.done:events()
              assert(object.done:pollfd() == object.done:getfd())
              object.stop()
              local below = ctx:with_cancel()
              assert(below:err() == err)
              below = context.merge(object.child, background):with_value("a", 1):with_timeout(1000)
              assert(below:value("a") == 1)
              object.cancel("late")
              assert(ctx:err() == context.Canceled)
              assert(below:err() == context.Canceled)
              assert(object.child:err() == context.Canceled)
              ctx:value("k")
              tostring(ctx)
              object.stop()
            end)
          end)
          assert.is_true(ok, message)
        end)

        it("may use keys, " .. when, function()
          for _, use in ipairs {
            "tostring(key)", "ctx:value(key)", "background:with_value(key, 1)", "background:with_values { [key] = 1 }",
            "tostring(background:with_value('k', key))", "tostring(background:with_value(key, key))",
            "assert(background:with_value(key, 1):value(key) == 1)",
          } do
            local output, status = child_process.run((([[
              collectgarbage("MODE")
              local context = require "lcontext"
              local background = context.background()
              do
                local object = {}
                local function finalize(self)
                  local key, ctx = self.key, self.ctx
                  print(pcall(function() USE end))
                end
                if not LATER then setmetatable(object, { __gc = finalize }) end
                object.key = context.key("name")
                object.ctx = background:with_value(object.key, "found")
                if LATER then setmetatable(object, { __gc = finalize }) end
              end
              collectgarbage()
              collectgarbage()
            ]]):gsub("%u%u%u+", {
              MODE = mode, LATER = tostring(later), USE = use:find("^assert") and use or "return " .. use,
            })))
            assert.equal(0, status, use .. ": " .. output)
          end
        end)

        it("may cancel its context: its callbacks run, " .. when, function()
          local ran = 0
          finalized(later, function(object)
            object.ctx, object.cancel = context.with_cancel(background)
            object.ctx:after_func(function() ran = ran + 1 end)
            object.ctx:after_func(function() ran = ran + 1 end)
          end, function(object)
            object.cancel("closed")
          end)
          context.dispatch()
          assert.equal(2, ran)
          assert.equal(0, leaks.more("callbacks"))
        end)

        it("may register callbacks, " .. when, function()
          local ran = 0
          finalized(later, function(object)
            object.ctx = background:with_cancel()
          end, function(object)
            object.ctx:after_func(function() ran = ran + 1 end)
          end)
          collect()
          context.dispatch()
          assert.equal(1, ran)
        end)

        it("may stop callbacks, " .. when, function()
          local ran, stopped = 0, nil
          finalized(later, function(object)
            object.ctx = background:with_cancel()
            object.stop = object.ctx:after_func(function() ran = ran + 1 end)
          end, function(object)
            stopped = object.stop()
          end)
          context.dispatch()
          assert.equal(stopped and 0 or 1, ran)
          assert.equal(0, leaks.more("callbacks"))
        end)

        it("may bring a context back, " .. when, function()
          local saved
          finalized(later, function(object)
            object.ctx, object.cancel = background:with_value("k", { "v" }):with_timeout(1000)
            object.done = object.ctx:done()
          end, function(object)
            saved = object
          end)
          collect()
          assert.equal(context.Canceled, saved.ctx:err())
          assert.equal(context.Canceled, saved.ctx:cause())
          assert.is_true(saved.done:closed())
          assert.is_true(saved.done:wait())
          assert.equal(saved.done, saved.ctx:done())
          assert.is_string(tostring(saved.ctx))
          assert.equal(context.Canceled, (saved.ctx:with_cancel():err()))
          saved.cancel("x")
          assert.equal(context.Canceled, saved.ctx:cause())
          local ran = false
          context.after_func(saved.ctx, function() ran = true end)
          context.dispatch()
          assert.is_true(ran)
          assert.is_number(saved.done:pollfd())
        end)
      end

      it("sees the values of a context that has not ended", function()
        local value, text, live
        finalized(true, function(object)
          object.ctx = background:with_value("text", "t"):with_value("k", { "logger" })
        end, function(object)
          live = object.ctx:err() == nil
          text = object.ctx:value("text")
          value = object.ctx:value("k")
        end)
        if live and text then
          assert.same({ "logger" }, value)
        end
      end)

      it("sees the cause of a context that has ended", function()
        local cause, err
        finalized(true, function(object)
          local cancel
          object.ctx, cancel = context.with_cancel(background)
          cancel({ "cause" })
        end, function(object)
          err, cause = object.ctx:err(), object.ctx:cause()
        end)
        assert.equal(context.Canceled, err)
        assert.is_not_nil(cause)
      end)

      it("may raise and wait", function()
        local waited
        finalized(true, function(object)
          object.ctx = background:with_timeout(0.005)
        end, function(object)
          waited = object.ctx:done():wait(60)
          error("in a finalizer")
        end)
        assert.is_true(waited)
      end)
    end)

    it("takes values, keys, causes and callbacks in random order", function()
      math.randomseed(99)
      local kept, stops, ran, stopped = {}, {}, 0, 0
      for i = 1, 20000 do
        local slot = math.random(50)
        local parent = kept[math.random(50)] or background
        local kind = math.random(7)
        local ctx, cancel
        if kind == 1 then
          ctx, cancel = parent:with_cancel()
        elseif kind == 2 then
          ctx, cancel = parent:with_timeout(1000, {})
        elseif kind == 3 then
          ctx = parent:with_value({}, {})
        elseif kind == 4 then
          ctx, cancel = parent:merge(kept[math.random(50)] or background)
        elseif kind == 5 then
          ctx = parent:with_values { a = {}, [i] = i }
        elseif kind == 6 then
          ctx = background:with_cancel()
        else
          ctx = background
        end
        if ctx:done() and math.random(3) == 1 then
          local stop = ctx:after_func(function() ran = ran + 1 return ctx end)
          stops[#stops + 1] = stop
          if math.random(4) == 1 and stop() then
            stopped = stopped + 1
          end
        end
        kept[slot] = ctx
        if cancel and math.random(3) == 1 then
          cancel({ ctx })
        end
        if math.random(1000) == 1 then
          collectgarbage()
          context.dispatch()
        end
      end
      kept = nil -- luacheck: ignore
      collect()
      context.dispatch()
      for _, stop in ipairs(stops) do -- what has a deadline is kept by its callback
        if stop() then
          stopped = stopped + 1
        end
      end
      assert.equal(#stops, ran + stopped)
      assert.equal(0, leaks.more("callbacks"))
    end)
  end)
end

describe("a million contexts", function()
  it("made and dropped leave nothing, and no more memory in use", function()
    local output, status = child_process.run([[
      local context = require "lcontext"
      local parent = context.background():with_cancel()
      local function resident() -- bytes; 0 where it is not known
        local file = io.open("/proc/self/statm")
        local pages = file and file:read("a"):match("^%d+ (%d+)") or 0
        if file then
          file:close()
        end
        return pages * 4096
      end
      local function make(n)
        for i = 1, n do
          local ctx = parent:with_timeout(1000)
          if i % 4 == 0 then
            ctx:with_value("k", {})
          elseif i % 4 == 1 then
            ctx:after_func(print)()
          elseif i % 4 == 2 then
            ctx:done()
          end
        end
        collectgarbage()
        collectgarbage()
      end
      make(100000)
      local before = resident()
      make(800000)
      local stats = context.stats()
      assert(stats.contexts == 1 and stats.live == 1, stats.contexts)
      assert(stats.timers == 0 and stats.callbacks == 0 and stats.waiters == 0)
      assert(resident() - before < 6e6, ("%d bytes more"):format(resident() - before))
    ]])
    assert.equal(0, status, output)
  end)
end)
