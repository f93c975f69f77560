local context = require "lcontext"
local busy = require "spec.support.busy"
local leaks = require "spec.support.leaks"
local socket = require "socket"

local background = context.background()

local function resume(co, ...)
  local results = table.pack(coroutine.resume(co, ...))
  assert.is_true(results[1], tostring(results[2]))
  return table.unpack(results, 2, results.n)
end

describe("a Done", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("is closed once its context has ended", function()
    local ctx, cancel = context.with_cancel(background)
    local done = ctx:done()
    assert.is_false(done:closed())
    assert.is_false(done:wait(0))
    cancel()
    assert.is_true(done:closed())
    assert.is_true(done:wait())
    assert.is_true(done:wait(0))
    assert.is_true(done:wait(-1))
    assert.is_true(done:wait(math.huge))
  end)

  it("refuses what is not one", function()
    local done = background:with_cancel():done()
    for _, name in ipairs { "wait", "closed", "pollfd", "events", "timeout", "getfd", "dirty" } do
      for _, wrong in ipairs { 1, "x", {}, io.stdout, background, context.key() } do
        assert.error_matches(function() done[name](wrong) end, "bad argument #1 to ")
      end
      assert.error_matches(function() done[name]() end, "bad argument #1 to ")
    end
  end)

  it("wait takes nil, infinity, negative, and no NaN", function()
    local ctx = background:with_timeout(0.005)
    assert.is_true(ctx:done():wait(nil))
    assert.is_true(background:with_timeout(0.005):done():wait(math.huge))
    assert.is_true(background:with_timeout(0.005):done():wait(1e300))
    local live = background:with_cancel():done()
    assert.is_false(live:wait(-math.huge))
    assert.is_false(live:wait(0.001))
    assert.error_matches(function() live:wait(0 / 0) end, "bad argument")
    assert.error_matches(function() live:wait("soon") end, "bad argument")
    assert.error_matches(function() live:wait({}) end, "bad argument")
    local ended = background:with_timeout(0):done()
    assert.error_matches(function() ended:wait(0 / 0) end, "bad argument")
  end)

  it("leaves no waiter behind", function()
    local done = background:with_cancel():done()
    done:wait(0.001)
    context.select(0.001, done, done)
    assert.equal(0, leaks.more("waiters"))
    assert.equal(0, leaks.more("timers"))
  end)

  it("speaks the protocol of cqueues", function()
    local ctx, cancel = context.with_timeout(background, 100)
    local done = ctx:done()
    assert.equal("integer", math.type(done:pollfd()))
    assert.equal(done:pollfd(), done:pollfd())
    assert.equal("r", done:events())
    assert.is_true(done:timeout() > 90 and done:timeout() <= 100)
    assert.is_nil((background:with_cancel():done():timeout()))
    assert.equal(0, (background:with_timeout(0):done():timeout()))
    cancel()
    assert.equal("r", done:events())
  end)

  it("speaks the protocol of LuaSocket", function()
    local ctx, cancel = context.with_cancel(background)
    local done = ctx:done()
    assert.equal(done:pollfd(), done:getfd())
    assert.is_false(done:dirty())
    assert.same({}, (socket.select({ done }, nil, 0)))
    cancel()
    assert.is_true(done:dirty())
    assert.equal(done, socket.select({ done }, nil, 0)[1])
  end)

  it("ends a socket.select by its deadline, beside a socket", function()
    local server = assert(socket.bind("127.0.0.1", 0))
    local ctx = background:with_timeout(0.01)
    local ready = socket.select({ server, ctx:done() }, nil, 10)
    assert.equal(ctx:done(), ready[1])
    assert.equal(context.DeadlineExceeded, ctx:err())
    server:close()
  end)

  it("is selected beside a TCP connection, each when it is ready", function()
    local server = assert(socket.bind("127.0.0.1", 0))
    local _, port = server:getsockname()
    local client = assert(socket.connect("127.0.0.1", port))
    local peer = assert(server:accept())
    local ctx, cancel = context.with_cancel(background)
    local done = ctx:done()
    assert.same({}, (socket.select({ client, done }, nil, 0.002)))
    assert(peer:send("hello\n"))
    local ready = socket.select({ client, done }, nil, 10)
    assert.equal(1, #ready)
    assert.equal(client, ready[1])
    assert.equal("hello", client:receive("*l"))
    cancel()
    ready = socket.select({ client, done }, nil, 10)
    assert.equal(1, #ready)
    assert.equal(done, ready[1])
    assert(peer:send("again\n"))
    while #ready < 2 do
      ready = socket.select({ client, done }, nil, 0)
    end
    assert.is_truthy(ready[client])
    assert.is_truthy(ready[done])
    client:close()
    peer:close()
    server:close()
  end)

  it("is readable for every select after the end, also when asked first then", function()
    local ctx, cancel = context.with_cancel(background)
    cancel()
    for _ = 1, 3 do
      assert.equal(ctx:done(), socket.select({ ctx:done() }, nil, 0)[1])
    end
  end)

  it("has a descriptor of its own", function()
    local one, two = background:with_cancel():done(), background:with_cancel():done()
    assert.not_equal(one:pollfd(), two:pollfd())
    assert.not_equal(one:pollfd(), context.pollfd())
  end)

  it("gives its descriptor back", function()
    local highest = 0
    for _ = 1, 3000 do
      local fd, message = background:with_cancel():done():pollfd()
      assert(fd, message)
      highest = math.max(highest, fd)
      if fd > 200 then
        collectgarbage()
      end
    end
    collectgarbage()
    assert.is_true(highest < 1000)
    assert.equal(0, leaks.more("waiters"))
  end)
end)

describe("select", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("gives the first ready", function()
    local one, cancel_one = context.with_cancel(background)
    local two, cancel_two = context.with_cancel(background)
    cancel_two()
    assert.equal(two:done(), context.select(one:done(), two:done()))
    cancel_one()
    assert.equal(one:done(), context.select(one:done(), two:done()))
    assert.equal(two:done(), context.select(two:done(), one:done()))
  end)

  it("of a time that is up and a closed Done takes the first in order", function()
    local ended = background:with_timeout(0):done()
    assert.equal(ended, context.select(ended, 0))
    assert.equal(0, context.select(0, ended))
    assert.equal(-1, context.select(-1, ended))
  end)

  it("never takes a nil", function()
    local ctx, cancel = context.with_cancel(background)
    cancel()
    assert.equal(ctx:done(), context.select(nil, ctx:done(), nil))
    assert.equal(ctx:done(), context.select(background:done(), ctx:done()))
    assert.equal(0, context.select(nil, 0, nil))
  end)

  it("gives the number itself when the time is up", function()
    local live = background:with_cancel():done()
    assert.equal(0.005, context.select(live, 0.005))
    assert.equal("integer", math.type(context.select(live, 0)))
    assert.equal(0.005, context.select(0.005))
    assert.equal(-3, context.select(live, -3))
  end)

  it("waits for a deadline", function()
    local slow, fast = background:with_timeout(100), background:with_timeout(0.01)
    assert.equal(fast:done(), context.select(slow:done(), fast:done(), 10))
    assert.equal(fast:done(), context.select(slow:done(), fast:done(), math.huge))
  end)

  it("takes many and takes some twice", function()
    local dones = {}
    for i = 1, 200 do
      dones[i] = background:with_timeout(i == 150 and 0.01 or 100):done()
    end
    assert.equal(dones[150], context.select(table.unpack(dones)))
    local done = background:with_timeout(0.01):done()
    assert.equal(done, context.select(done, done, done))
    local thousands = {}
    for i = 1, 20000 do
      thousands[i] = dones[1]
    end
    thousands[20001] = 0.001
    assert.equal(0.001, context.select(table.unpack(thousands)))
  end)

  it("raises when there is nothing to wait for", function()
    for _, f in ipairs {
      function() context.select() end, function() context.select(nil) end, function() context.select(nil, nil) end,
      function() context.select(background:done()) end,
    } do
      assert.error(f)
    end
  end)

  it("raises for wrong arguments", function()
    local done = background:with_cancel():done()
    for _, wrong in ipairs { "5", "x", {}, true, false, print, io.stdout, background, (background:with_cancel()),
      context.key() } do
      assert.error_matches(function() context.select(done, wrong) end, "bad argument #2 to ")
    end
    assert.error_matches(function() context.select(done, 0 / 0) end, "bad argument #2 to ")
    assert.error_matches(function() context.select(done, 1, 2) end, "bad argument #3 to ")
    assert.error_matches(function() context.select(1, done, 1) end, "bad argument #3 to ")
  end)
end)

describe("in a coroutine that no loop runs", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("wait yields its Done, and the seconds if any", function()
    local ctx, cancel = context.with_cancel(background)
    local co = coroutine.create(function() return "result", ctx:done():wait() end)
    local yielded = table.pack(resume(co))
    assert.equal(1, yielded.n)
    assert.equal(ctx:done(), yielded[1])
    local timed = coroutine.create(function() return ctx:done():wait(5) end)
    yielded = table.pack(resume(timed))
    assert.equal(2, yielded.n)
    assert.equal(ctx:done(), yielded[1])
    assert.is_true(yielded[2] > 4 and yielded[2] <= 5)
    cancel()
    assert.same({ "result", true }, { resume(co) })
    assert.is_true(resume(timed))
    assert.equal("dead", coroutine.status(co))
  end)

  it("select yields its Dones in order, then the seconds", function()
    local one, two = background:with_cancel(), context.with_timeout(background, 100)
    local co = coroutine.create(function() return context.select(nil, two:done(), 3, nil, one:done()) end)
    local yielded = table.pack(resume(co))
    assert.equal(3, yielded.n)
    assert.equal(two:done(), yielded[1])
    assert.equal(one:done(), yielded[2])
    assert.is_true(yielded[3] > 2 and yielded[3] <= 3)
    coroutine.close(co)
    co = coroutine.create(function() return context.select(3) end)
    yielded = table.pack(resume(co))
    assert.equal(1, yielded.n)
    assert.is_number(yielded[1])
  end)

  it("does not yield for what is ready", function()
    local ended = background:with_timeout(0)
    local co = coroutine.create(function()
      return ended:done():wait(), context.select(nil, ended:done(), 5), background:with_cancel():done():wait(0)
    end)
    assert.same({ true, ended:done(), false }, { resume(co) })
    assert.equal("dead", coroutine.status(co))
  end)

  it("yields again to who resumes too early, whatever is passed", function()
    local ctx, cancel = context.with_cancel(background)
    local co = coroutine.create(function(...) return select("#", ...), ctx:done():wait(100), "end" end)
    local last = 100.1
    for i = 1, 20 do
      local done, seconds = resume(co, table.unpack({ "some", "things", 1, 2, 3, 4, 5, 6, 7, 8 }, 1, i % 10))
      assert.equal(ctx:done(), done)
      assert.is_true(seconds <= last)
      last = seconds
    end
    cancel()
    assert.same({ 1, true, "end" }, { resume(co, "rubbish", "more") })
  end)

  it("gives up when it is resumed after the time", function()
    local live = background:with_cancel()
    local co, limit = busy.waiting(function(seconds) return live:done():wait(seconds) end)
    background:with_timeout(2 * limit):done():wait()
    assert.is_false(resume(co))
    co, limit = busy.waiting(function(seconds) return context.select(live:done(), seconds) end)
    background:with_timeout(2 * limit):done():wait()
    assert.equal(limit, resume(co))
  end)

  it("leaves no waiter when it is closed, collected or given up", function()
    local ctx, cancel = context.with_cancel(background)
    local done = ctx:done()
    for _ = 1, 100 do
      local co = coroutine.create(function() done:wait(100) end)
      resume(co)
      assert.is_true(coroutine.close(co))
      resume(coroutine.create(function() context.select(done, done, 100) end))
    end
    collectgarbage()
    assert.equal(0, leaks.more("waiters"))
    assert.equal(0, leaks.more("timers"))
    assert.equal(1, leaks.more("contexts"))
    cancel()
    assert.equal(0, context.dispatch())
  end)

  it("closes what is to be closed when it is closed while it waits", function()
    local closed
    local co = coroutine.create(function()
      local ctx <close> = context.with_cancel(background)
      closed = ctx
      ctx:done():wait()
    end)
    resume(co)
    assert.is_nil(closed:err())
    assert.is_true(coroutine.close(co))
    assert.equal(context.Canceled, closed:err())
  end)

  it("can wait across pcall, iterators and metamethods", function()
    local ctx, cancel = context.with_cancel(background)
    local object = setmetatable({}, { __index = function() return ctx:done():wait() end })
    local co = coroutine.create(function()
      local ok, value = pcall(function() return object.field end)
      for result in function(_, last) return last == nil and ctx:done():wait() or nil end do
        ok = ok and result
      end
      return ok, value
    end)
    resume(co)
    resume(co)
    cancel()
    assert.same({ true, true }, { resume(co) })
  end)

  it("blocks where a C function in between forbids to yield", function()
    local ctx = background:with_timeout(0.01)
    local co = coroutine.create(function()
      local results = {}
      table.sort({ 2, 1 }, function(a, b)
        results[#results + 1] = ctx:done():wait()
        return a < b
      end)
      local text = ("x"):gsub("x", function() return tostring(ctx:done():wait()) end)
      return results[1], text
    end)
    assert.same({ true, "true" }, { resume(co) })
  end)

  it("waits in coroutines within coroutines", function()
    local ctx, cancel = context.with_cancel(background)
    local co = coroutine.create(function()
      local inner = coroutine.wrap(function() return ctx:done():wait() end)
      local result = inner()
      while result ~= true do
        coroutine.yield(result)
        result = inner()
      end
      return result
    end)
    assert.equal(ctx:done(), resume(co))
    assert.equal(ctx:done(), resume(co))
    cancel()
    assert.is_true(resume(co))
  end)

  it("is a generator that stops with its context, as Go's example", function()
    local ctx, cancel = context.with_cancel(background)
    local function generate()
      return coroutine.wrap(function()
        local n = 1
        while not ctx:err() do
          coroutine.yield(n)
          n = n + 1
        end
      end)
    end
    local got = {}
    for n in generate() do
      got[#got + 1] = n
      if n == 5 then
        cancel()
      end
    end
    assert.same({ 1, 2, 3, 4, 5 }, got)
  end)

  it("does not grow by being resumed 200,000 times too early", function()
    local live = background:with_cancel():done()
    local co = coroutine.create(function() return live:wait(1000) end)
    for _ = 1, 200000 do
      resume(co, 1, 2, 3)
    end
    coroutine.close(co)
  end)
end)
