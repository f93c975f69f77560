local child_process = require "spec.support.child"

local function run(script)
  local output, status = child_process.run([[
    local context = require "lcontext"
    local background = context.background()
  ]] .. script)
  assert.not_equal(124, status, "it hangs: " .. output)
  assert.equal(0, status, script .. "\n" .. output)
  return output
end

describe("closing the Lua state", function()
  it("is safe with live timers, callbacks, waiters and values", function()
    for _ = 1, 3 do
      assert.equal("end\n", run [[
        local loop = require "lcontext.loop"
        kept = {}
        for i = 1, 1000 do
          local parent = kept[math.random(math.max(#kept, 1))] or background
          kept[i] = i % 4 == 0 and parent:with_timeout(math.random() * 0.01, {})
            or i % 4 == 1 and (parent:with_cancel())
            or i % 4 == 2 and parent:with_value({}, function() return kept end) or (parent:merge(background))
          kept[i]:after_func(function() error("callback at the end") end)
          if kept[i]:done() then
            kept[i]:done():pollfd()
          end
          local co = coroutine.create(function() return kept[i]:done() and kept[i]:done():wait(5) end)
          coroutine.resume(co)
          kept[-i] = co
          loop.spawn(function() loop.sleep(10, kept[i]) end)
        end
        pcall(loop.run, function() loop.sleep(0.003) error("stop") end)
        print "end"
      ]])
    end
  end)

  it("is safe by os.exit(0, true), from anywhere", function()
    local places = {
      "os.exit(0, true)",
      "local ctx, cancel = background:with_cancel() ctx:after_func(function() os.exit(0, true) end) cancel()",
      "coroutine.wrap(function() background:with_timeout(1000) os.exit(0, true) end)()",
      "require 'lcontext.loop'.run(function() background:with_timeout(1000):after_func(print) os.exit(0, true) end)",
      [[local loop = require 'lcontext.loop'
        loop.spawn(function() loop.sleep(10) end)
        loop.run(function() loop.sleep(0.005) os.exit(0, true) end)]],
      [[local ctx, cancel = background:with_cancel()
        require 'lcontext.loop'.run(function() ctx:after_func(function() os.exit(0, true) end) cancel()
          require 'lcontext.loop'.sleep(0.01) end)]],
      "setmetatable({ background:with_timeout(1000) }, { __gc = function() os.exit(0) end }) collectgarbage()",
      "local ctx <close> = background:with_timeout(1000) ctx:after_func(function() os.exit(0, true) end)",
      "background:with_timeout(0.005):after_func(function() os.exit(0, true) end) context.select(60)",
      [[context.with_cancel({ deadline = print, err = print, value = print,
        done = function() os.exit(0, true) end })]],
      [[background:with_timeout(0.005) local n = 0
        for _ = 1, 1e6 do n = n + 1 end os.exit(0, true)]],
    }
    for _, place in ipairs(places) do
      run(place .. " os.exit(1, true)")
    end
  end)

  it("lets finalizers use contexts, whenever they were made", function()
    -- An object that was marked before the library was loaded is finalized after the library's own state.
    local output, status = child_process.run [[
      io.stdout:setvbuf "no"
      local function finalize(object)
        local context, ctx = object.context, object.ctx
        local function try(name, f, ...)
          local ok, err = pcall(f, ...)
          io.write(name, " ", ok and "ok" or (tostring(err):gsub("\n.*", "")), "\n")
        end
        try("err", ctx.err, ctx)
        try("cause", ctx.cause, ctx)
        try("done", ctx.done, ctx)
        try("closed", function() return ctx:done():closed() end)
        try("wait", function() return ctx:done():wait(0.001) end)
        try("pollfd", function() return ctx:done():pollfd() end)
        try("value", ctx.value, ctx, "k")
        try("table value", ctx.value, ctx, object)
        try("tostring", tostring, ctx)
        try("with_cancel", function() local c, cancel = ctx:with_cancel() cancel({}) return c:cause() end)
        try("with_timeout", function()
          return context.background():with_timeout(0.001, {}):done():wait(0.01)
        end)
        try("with_timeout 1000", function() object.far = context.background():with_timeout(1000) end)
        try("merge", function() return context.merge(ctx, context.background()):err() end)
        try("after_func", function() return context.background():with_cancel():after_func(print) end)
        try("after_func on it", function() return ctx:after_func(print) end)
        try("stop", object.stop)
        try("cancel", object.cancel, {})
        try("dispatch", context.dispatch)
        try("dispatch and wait", context.dispatch, 0.001)
        try("context.pollfd", context.pollfd)
        try("select", context.select, ctx:done(), 0.001)
        try("new key", context.key, "x")
        try("stats", context.stats)
        try("co", function()
          local co = coroutine.create(function() context.background():with_cancel():done():wait(5) end)
          coroutine.resume(co)
          return coroutine.close(co)
        end)
        try("loop", object.loop.run, function() object.loop.sleep(0.001) end)
      end
      local early = setmetatable({}, { __gc = finalize })
      local context = require "lcontext"
      early.context = context
      early.loop = require "lcontext.loop"
      early.ctx, early.cancel = context.background():with_value("k", early):with_value(early, 1):with_timeout(1000)
      early.stop = early.ctx:after_func(print)
      local late = { context = context, loop = early.loop }
      late.ctx, late.cancel = context.background():with_value("k", late):with_value(late, 1):with_timeout(1000)
      late.stop = late.ctx:after_func(print)
      setmetatable(late, { __gc = finalize })
      kept = { early, late }
      os.exit(0, true)
    ]]
    assert.equal(0, status, output)
    assert.equal(2, select(2, output:gsub("loop [^\n]*\n", "")), output)
  end)

  it("runs no callback", function()
    assert.equal("", run [[
      kept = background:with_cancel()
      kept:after_func(function() print "too late" end)
      background:with_timeout(1000):after_func(function() print "too late" end)
    ]])
  end)

  it("is safe again and again in coroutines that wait for ever", function()
    run [[
      kept = {}
      for i = 1, 100 do
        kept[i] = coroutine.wrap(function()
          local ctx <close> = background:with_cancel()
          ctx:done():wait()
        end)
        kept[i]()
      end
    ]]
  end)
end)

describe("requiring the module", function()
  it("again, after clearing package.loaded, gives the same", function()
    run [[
      local ctx, cancel = context.with_cancel(background)
      local ran = false
      ctx:after_func(function() ran = true end)
      for name in pairs(package.loaded) do
        if name:find("^lcontext") then
          package.loaded[name] = nil
        end
      end
      collectgarbage()
      local again = require "lcontext"
      assert(again.background() == background)
      assert(again.Canceled == context.Canceled)
      local child = again.with_cancel(ctx)
      cancel("why")
      assert(ran)
      assert(child:cause() == "why" and child:err() == again.Canceled)
      local loop = require "lcontext.loop"
      loop.run(function() loop.sleep(0.001) end)
    ]]
  end)

  it("sets no globals and leaves the standard library as it was, but for the coroutine functions and xpcall", function()
    local output = run [[
      local before = {}
      local function snapshot(t)
        for name, value in pairs(t) do before[name] = value end
      end
      for name in pairs(package.loaded) do
        if name:find("^lcontext") then package.loaded[name] = nil end
      end
      snapshot(_G)
      require "lcontext"
      require "lcontext.loop"
      for name, value in pairs(_G) do
        if before[name] ~= value then print(name) end
      end
    ]]
    assert.equal("", output)
    output = child_process.run [[
      local before = {}
      for name in pairs(_G) do before[name] = true end
      require "lcontext"
      require "lcontext.loop"
      for name in pairs(_G) do
        if not before[name] then print(name) end
      end
      for name in pairs(before) do
        if _G[name] == nil then print("gone: " .. name) end
      end
    ]]
    assert.equal("", output)
  end)

  it("gives the same table each time", function()
    assert.equal(require "lcontext", require "lcontext")
    assert.equal(require "lcontext.loop", require "lcontext.loop")
  end)
end)

describe("the public names", function()
  local context = require "lcontext"

  for _, name in ipairs {
    "background", "todo", "with_cancel", "with_deadline", "with_timeout", "with_value", "with_values",
    "without_cancel",
    "merge", "after_func", "cause", "key", "now", "dispatch", "pollfd", "select", "share", "adopt", "stats",
    "interrupt",
  } do
    it("context." .. name, function()
      assert.equal("function", type(context[name]))
    end)
  end

  for _, name in ipairs {
    "with_cancel", "with_deadline", "with_timeout", "with_value", "with_values", "without_cancel", "merge",
    "after_func", "cause", "deadline", "remaining", "done", "err", "value",
    "pcall", "call", "share",
  } do
    it("ctx:" .. name, function()
      assert.equal("function", type(context.background()[name]))
    end)
  end

  it("done:…", function()
    local done = context.with_cancel(context.background()):done()
    for _, name in ipairs { "wait", "closed", "pollfd", "events", "timeout", "getfd", "dirty" } do
      assert.equal("function", type(done[name]), name)
    end
  end)

  it("lcontext.loop", function()
    local loop = require "lcontext.loop"
    for _, name in ipairs { "spawn", "run", "sleep" } do
      assert.equal("function", type(loop[name]), name)
    end
  end)

  it("Canceled, DeadlineExceeded, _VERSION", function()
    assert.equal("userdata", type(context.Canceled))
    assert.equal("userdata", type(context.DeadlineExceeded))
    assert.equal("string", type(context._VERSION))
  end)
end)

describe("signals", function()
  it("end a blocking wait: Ctrl-C", function()
    for _, wait in ipairs { "background:with_cancel():done():wait()", "background:with_cancel():done():wait(1000)",
      "context.select(1000)", "context.dispatch(1000)",
      "local loop = require 'lcontext.loop' loop.run(function() loop.sleep(1000) end)" } do
      local output, status = child_process.run([[
        local context = require "lcontext"
        local background = context.background()
        -- The parent of the shell is this process. (os.execute() would ignore the signal for as long as it runs.)
        pipe = io.popen "sleep 0.1; kill -INT $PPID"
        ]] .. wait)
      assert.equal(1, status, output)
      assert.matches("interrupted!", output)
    end
  end)
end)
