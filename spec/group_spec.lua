local context = require "lcontext"
local cqueues = require "cqueues"
local group = require "lcontext.group"
local lcqueues = require "lcontext.cqueues"
local loop = require "lcontext.loop"
local luv = require "lcontext.luv"
local uv = require "luv"
local child_process = require "spec.support.child"
local leaks = require "spec.support.leaks"

local background = context.background()

-- What would hang, or end the process, in a process of its own.
local function in_child(script)
  local output, status = child_process.run([[
    local context = require "lcontext"
    local cqueues = require "cqueues"
    local group = require "lcontext.group"
    local lcqueues = require "lcontext.cqueues"
    local loop = require "lcontext.loop"
    local luv = require "lcontext.luv"
    local uv = require "luv"
    local background = context.background()
    local function after(ms, f)
      local timer = uv.new_timer()
      timer:start(ms, 0, function() timer:close() f() end)
    end
  ]] .. script)
  assert.not_equal(124, status, "it hangs: " .. output)
  assert.equal(0, status, output)
  return output
end

-- Waits that nothing ends, in a task: until the group's context has ended.
local function until_ended(ctx)
  ctx:done():wait()
end

-- A group whose limit is 1, with a task, under a deadline that comes soon, but not before the task could be started.
local function with_task_until_deadline(cause)
  local seconds = 0.01
  local g, ctx
  repeat
    g, ctx = group.new((background:with_timeout(seconds, cause)))
    g:set_limit(1)
    seconds = 2 * seconds
  until g:go(until_ended) or seconds > 60
  return g, ctx
end

-- Where groups are used: each is called with what uses them.
local environments = {}

local function add(place, run)
  environments[#environments + 1] = { place = place, run = run }
end

add("in a task of the embedded loop", function(f)
  loop.run(f)
end)

add("in a coroutine of luv", function(f)
  luv.attach()
  coroutine.wrap(f)()
  uv.run()
  luv.detach()
  uv.run("nowait")
end)

add("in a coroutine of cqueues", function(f)
  local controller = cqueues.new()
  lcqueues.attach(controller)
  controller:wrap(f)
  local ok, err = controller:loop()
  lcqueues.detach()
  assert(ok, err)
end)

add("in the main coroutine", function(f)
  f()
end)

add("in the main coroutine, with luv attached", function(f)
  luv.attach()
  f()
  luv.detach()
  uv.run("nowait")
end)

add("in the main coroutine, with cqueues attached", function(f)
  local controller = cqueues.new()
  lcqueues.attach(controller)
  f()
  lcqueues.detach()
end)

for _, environment in ipairs(environments) do
  local place = environment.place

  -- Errors, those of assertions too, come out of here whatever the loop does with them.
  local function run(f)
    local over, failure
    environment.run(function()
      xpcall(f, function(err) failure = { err } end)
      over = true
    end)
    if failure then
      error(failure[1], 0)
    end
    assert.is_true(over)
  end

  describe("a group " .. place, function()
    before_each(leaks.before)
    after_each(function()
      luv.detach()
      lcqueues.detach()
      leaks.after()
    end)

    it("without tasks waits for nothing, and ends its context", function()
      run(function()
        local g, ctx = group.new(background)
        assert.is_nil(ctx:err())
        assert.same({ true, n = 1 }, table.pack(g:wait()))
        assert.equal(context.Canceled, ctx:err())
        assert.equal(context.Canceled, ctx:cause())
      end)
    end)

    it("waits for its tasks, which get its context and their arguments", function()
      run(function()
        local g, ctx = group.new(background)
        local got = {}
        for i = 1, 5 do
          assert.is_true(g:go(function(...)
            loop.sleep(0.001)
            got[i] = table.pack(...)
          end, i, nil, "three", nil))
        end
        assert.is_true(g:wait())
        for i = 1, 5 do
          assert.same({ ctx, i, nil, "three", n = 5 }, got[i])
        end
        assert.equal(context.Canceled, ctx:err())
      end)
    end)

    it("runs its tasks at the same time", function()
      run(function()
        local g = group.new(background)
        local all, all_run = context.with_cancel(background)
        local running, most = 0, 0
        for _ = 1, 10 do
          g:go(function()
            running = running + 1
            most = math.max(most, running)
            if running == 10 then
              all_run()
            end
            all:done():wait(30)
            running = running - 1
          end)
        end
        assert.is_true(g:wait())
        assert.equal(10, most)
        assert.equal(0, running)
      end)
    end)

    it("gives the error that a task returns, which is the cause", function()
      run(function()
        for _, object in ipairs { "a string", {}, 5, context.Canceled, false } do
          local g, ctx = group.new(background)
          g:go(function() return true end)
          g:go(function() return nil, object end)
          g:go(until_ended)
          assert.same({ nil, object, n = 2 }, table.pack(g:wait()))
          assert.equal(context.Canceled, ctx:err())
          assert.equal(object, ctx:cause())
        end
      end)
    end)

    it("takes everything else that a task returns for a success", function()
      run(function()
        local g = group.new(background)
        g:go(function() end)
        g:go(function() return nil end)
        g:go(function() return nil, nil, "x" end)
        g:go(function() return false end)
        g:go(function() return false, "x" end)
        g:go(function() return 1, "x" end)
        assert.is_true(g:wait())
      end)
    end)

    it("gives an error string that a task raises with the task's traceback", function()
      run(function()
        local g, ctx = group.new(background)
        local function culprit() error("the problem") end
        g:go(function()
          loop.sleep(0.001)
          culprit()
        end)
        g:go(until_ended)
        local ok, err = g:wait()
        assert.is_nil(ok)
        assert.matches("^spec/group_spec.lua:%d+: the problem\n", (err:gsub("^%./", "")))
        assert.matches("stack traceback:", err)
        assert.matches("group_spec.lua:%d+: in .*culprit", err)
        assert.equal(err, ctx:cause())
      end)
    end)

    it("gives an error object that a task raises as it is", function()
      run(function()
        for _, object in ipairs { {}, 5, context.DeadlineExceeded, print, true, false,
          setmetatable({}, { __tostring = error }) } do
          local g, ctx = group.new(background)
          g:go(function()
            loop.sleep(0)
            error(object)
          end)
          local ok, err = g:wait()
          assert.is_nil(ok)
          assert.is_true(rawequal(object, err))
          assert.is_true(rawequal(object, ctx:cause()))
        end
      end)
    end)

    it("calls a raised nil a failure", function()
      run(function()
        local g, ctx = group.new(background)
        g:go(function() error(nil) end)
        local ok, err = g:wait()
        assert.is_nil(ok)
        assert.is_not_nil(err)
        assert.equal(err, ctx:cause())
      end)
    end)

    it("gives the first error of several", function()
      run(function()
        local g, ctx = group.new(background)
        for i = 3, 1, -1 do
          g:go(function()
            if i > 1 then
              ctx:done():wait()
            end
            return nil, i
          end)
        end
        assert.same({ nil, 1 }, { g:wait() })
        assert.equal(1, ctx:cause())
      end)
    end)

    it("cancels the other tasks with the first error, and waits for them", function()
      run(function()
        local g = group.new(background)
        local seen, ended = {}, 0
        for i = 1, 5 do
          g:go(function(ctx)
            assert(loop.sleep(100, ctx) == nil)
            seen[i] = ctx:cause()
            loop.sleep(0.002)
            ended = ended + 1
          end)
        end
        g:go(function()
          loop.sleep(0.001)
          return nil, "first"
        end)
        assert.same({ nil, "first" }, { g:wait() })
        assert.equal(5, ended)
        assert.same({ "first", "first", "first", "first", "first" }, seen)
      end)
    end)

    it("gives the same with every wait", function()
      run(function()
        local object = {}
        local failed, fine = group.new(background), group.new(background)
        failed:go(error, object)
        fine:go(function() end)
        for _ = 1, 3 do
          assert.is_true(fine:wait())
        end
        local _, first = failed:wait()
        for _ = 1, 3 do
          assert.same({ nil, first, n = 2 }, table.pack(failed:wait()))
        end
      end)
    end)

    it("refuses tasks after its end", function()
      run(function()
        local g = group.new(background)
        assert.is_true(g:wait())
        local ran = false
        for _ = 1, 2 do
          assert.same({ nil, context.Canceled, n = 2 }, table.pack(g:go(function() ran = true end)))
          assert.same({ nil, context.Canceled, n = 2 }, table.pack(g:try_go(function() ran = true end)))
        end
        assert.is_true(g:wait())
        assert.is_false(ran)
        g = group.new(background)
        g:go(function() return nil, "first" end)
        g:go(function(ctx)
          until_ended(ctx)
          assert(select("#", g:go(print)) == 2 and g:go(print) == nil)
        end)
        assert.same({ nil, "first" }, { g:wait() })
        assert.same({ nil, context.Canceled }, { g:go(print) })
        assert.same({ nil, "first" }, { g:wait() })
      end)
    end)

    it("under a parent that has ended refuses all, and that is its error", function()
      run(function()
        local parent, cancel = context.with_cancel(background)
        cancel("long ago")
        local g, ctx = group.new(parent)
        assert.equal("long ago", ctx:cause())
        local ran = false
        assert.same({ nil, context.Canceled, n = 2 }, table.pack(g:go(function() ran = true end)))
        assert.same({ nil, context.Canceled, n = 2 }, table.pack(g:wait()))
        assert.is_false(ran)
        assert.is_true(group.new(parent):wait())
      end)
    end)

    it("ends with the deadline of its parent, which is an error if a task says so", function()
      run(function()
        local g, ctx = group.new((background:with_timeout(0.01)))
        for _ = 1, 3 do
          g:go(function(task_ctx) return loop.sleep(100, task_ctx) end)
        end
        assert.same({ nil, context.DeadlineExceeded }, { g:wait() })
        assert.equal(context.DeadlineExceeded, ctx:err())
        g, ctx = with_task_until_deadline("late")
        assert.is_true(g:wait())
        assert.equal("late", ctx:cause())
      end)
    end)

    it("can be cancelled by a task of it through the parent", function()
      run(function()
        local parent, cancel = context.with_cancel(background)
        local g, ctx = group.new(parent)
        g:go(function(task_ctx) return loop.sleep(100, task_ctx) end)
        g:go(function() cancel("enough") end)
        assert.same({ nil, context.Canceled }, { g:wait() })
        assert.equal("enough", ctx:cause())
      end)
    end)

    it("takes tasks from its tasks", function()
      run(function()
        local g = group.new(background)
        local count = 0
        local function task(_, depth)
          count = count + 1
          loop.sleep(0)
          if depth > 0 then
            assert(g:go(task, depth - 1))
            assert(g:go(task, depth - 1))
          end
        end
        g:go(task, 4)
        assert.is_true(g:wait())
        assert.equal(31, count)
      end)
    end)

    it("calls what can be called", function()
      run(function()
        local g = group.new(background)
        local got
        g:go(setmetatable({}, { __call = function(_, _, value) got = value end }), 5)
        assert.is_true(g:wait())
        assert.equal(5, got)
      end)
    end)

    it("never runs more tasks at once than its limit", function()
      run(function()
        for _, limit in ipairs { 1, 3, 19, 20, 100 } do
          local g = group.new(background)
          g:set_limit(limit)
          local running, most, count = 0, 0, 0
          for i = 1, 20 do
            assert.is_true(g:go(function()
              running = running + 1
              most = math.max(most, running)
              loop.sleep(i % 3 / 2000)
              running = running - 1
              count = count + 1
            end))
          end
          assert.is_true(g:wait())
          assert.equal(20, count)
          assert.is_true(most <= limit)
          assert.equal(limit == 1 and 1 or most, most)
        end
      end)
    end)

    it("at its limit does not try", function()
      run(function()
        local g = group.new(background)
        g:set_limit(2)
        assert.is_true(g:try_go(function() loop.sleep(0.001) end))
        assert.is_true(g:try_go(function() loop.sleep(0.001) end))
        assert.same({ false, n = 1 }, table.pack(g:try_go(print)))
        assert.is_true(g:go(function() end))
        assert.is_true(g:wait())
        local endless = group.new(background)
        local count = 0
        for _ = 1, 50 do
          assert.is_true(endless:try_go(function() count = count + 1 end))
        end
        assert.is_true(endless:wait())
        assert.equal(50, count)
      end)
    end)

    it("with a limit of 0 runs nothing", function()
      run(function()
        local g = group.new(background)
        g:set_limit(0)
        assert.is_false(g:try_go(print))
        assert.is_true(g:wait())
      end)
    end)

    it("lets its limit be set while none of its tasks runs", function()
      run(function()
        local g = group.new(background)
        g:set_limit(1)
        g:set_limit(-1)
        g:set_limit(math.huge)
        g:set_limit(2.0)
        g:set_limit(3)
        g:go(function() loop.sleep(0.001) end)
        assert.error_matches(function() g:set_limit(5) end, "while 1 of its tasks run")
        assert.is_true(g:wait())
        g:set_limit(5)
      end)
    end)

    it("refuses wrong arguments", function()
      run(function()
        for _, wrong in ipairs { 1, "x", true, {}, io.stdout, background } do
          local g = group.new(background)
          assert.error_matches(function() g:go(wrong) end, "bad argument #1 to 'go'")
          assert.error_matches(function() g:try_go(wrong) end, "bad argument #1 to 'try_go'")
          assert.is_true(g:wait())
        end
        for _, wrong in ipairs { 1.5, 0 / 0, -math.huge, "x", {}, true } do
          assert.error_matches(function() group.new(background):set_limit(wrong) end,
            "bad argument #1 to 'set_limit'")
        end
        local message = select(2, pcall(function() group.new(background):go(5) end))
        assert.matches("group_spec.lua:%d+: bad argument", message)
        message = select(2, pcall(function() group.new(background):set_limit("x") end))
        assert.matches("group_spec.lua:%d+: bad argument", message)
        local g = group.new(background)
        assert.error_matches(function() g:go() end, "bad argument #1 to 'go'")
        assert.error_matches(function() g:set_limit() end, "bad argument #1 to 'set_limit'")
        assert.error_matches(function() group.new() end, "cannot create context from nil parent")
        assert.error_matches(function() group.new(5) end, "bad argument #1 to .*context expected, got number")
        assert.is_true(g:wait())
      end)
    end)

    it("lets who waits for a place go when its context ends", function()
      run(function()
        local g = with_task_until_deadline()
        local ran = false
        assert.same({ nil, context.DeadlineExceeded, n = 2 }, table.pack(g:go(function() ran = true end)))
        assert.same({ nil, context.DeadlineExceeded }, { g:wait() })
        assert.is_false(ran)
      end)
    end)

    it("lets who waits for a place go when a task fails", function()
      run(function()
        local g = group.new(background)
        g:set_limit(2)
        g:go(until_ended)
        g:go(function()
          loop.sleep(0.002)
          return nil, "first"
        end)
        assert.same({ nil, context.Canceled, n = 2 }, table.pack(g:go(print)))
        assert.same({ nil, "first" }, { g:wait() })
      end)
    end)

    it("in a group ends before that", function()
      run(function()
        local order = {}
        local outer, outer_ctx = group.new(background)
        outer:go(function(ctx)
          local inner <close> = group.new(ctx)
          for _ = 1, 3 do
            inner:go(function()
              loop.sleep(0.001)
              order[#order + 1] = "task"
            end)
          end
          assert(inner:wait() == true)
          order[#order + 1] = "inner"
        end)
        assert.is_true(outer:wait())
        order[#order + 1] = "outer"
        assert.same({ "task", "task", "task", "inner", "outer" }, order)
        assert.equal(context.Canceled, outer_ctx:err())
      end)
    end)

    it("in a group passes its error on, and the outer one's end comes down", function()
      run(function()
        local object = {}
        local outer, ctx = group.new(background)
        local seen
        outer:go(function(outer_ctx)
          local inner = group.new(outer_ctx)
          inner:go(function() error(object) end)
          return inner:wait()
        end)
        outer:go(function(outer_ctx)
          local inner, inner_ctx = group.new(outer_ctx)
          inner:go(until_ended)
          inner:go(function(inner_task_ctx) return loop.sleep(100, inner_task_ctx) end)
          local ok, err = inner:wait()
          seen = { ok, err, inner_ctx:cause() }
        end)
        assert.same({ nil, object }, { outer:wait() })
        assert.equal(object, ctx:cause())
        assert.same({ nil, context.Canceled, object }, seen)
      end)
    end)

    it("at scope exit cancels and waits: no task outlives the scope", function()
      run(function()
        local ended = 0
        local seen
        do
          local g <close>, ctx = group.new(background)
          seen = ctx
          for _ = 1, 5 do
            g:go(function(task_ctx)
              task_ctx:done():wait()
              loop.sleep(0.002)
              ended = ended + 1
            end)
          end
        end
        assert.equal(5, ended)
        assert.equal(context.Canceled, seen:err())
        assert.equal(context.Canceled, seen:cause())
      end)
    end)

    it("whose scope is left by an error passes that through, as the cause", function()
      run(function()
        for _, object in ipairs { {}, context.DeadlineExceeded, "a string", false } do
          local ended, causes = 0, {}
          local seen
          local ok, err = pcall(function()
            local g <close>, ctx = group.new(background)
            seen = ctx
            for i = 1, 3 do
              g:go(function(task_ctx)
                until_ended(task_ctx)
                causes[i] = task_ctx:cause()
                loop.sleep(0.001)
                ended = ended + 1
              end)
            end
            loop.sleep(0)
            error(object, 0)
          end)
          assert.is_false(ok)
          assert.is_true(rawequal(object, err))
          assert.is_true(rawequal(object, seen:cause()))
          assert.equal(3, ended)
          assert.same({ object, object, object }, causes)
        end
      end)
    end)

    it("whose scope is left by break, goto and return has ended then", function()
      run(function()
        local ended = 0
        local function leave()
          local g <close> = group.new(background)
          g:go(function(ctx)
            until_ended(ctx)
            ended = ended + 1
          end)
          return "value", 2
        end
        assert.same({ "value", 2 }, { leave() })
        assert.equal(1, ended)
        for i = 1, 3 do
          local g <close> = group.new(background)
          g:go(function(ctx)
            until_ended(ctx)
            ended = ended + 1
          end)
          if i == 2 then
            break
          end
        end
        assert.equal(3, ended)
      end)
    end)

    it("may be waited for again at scope exit", function()
      run(function()
        local kept
        do
          local g <close> = group.new(background)
          kept = g
          g:go(function() return nil, "seen" end)
          assert.same({ nil, "seen" }, { g:wait() })
        end
        assert.same({ nil, "seen" }, { kept:wait() })
      end)
    end)

    it("refuses a task at scope exit that one of its tasks starts", function()
      run(function()
        local refused, late
        do
          local g <close> = group.new(background)
          g:go(function(ctx)
            until_ended(ctx)
            refused = table.pack(g:go(function() late = true end))
          end)
        end
        assert.same({ nil, context.Canceled, n = 2 }, refused)
        assert.is_nil(late)
      end)
    end)

    it("waits in the __close handlers of its tasks, too", function()
      run(function()
        local closed = 0
        local g = group.new(background)
        for i = 1, 4 do
          g:go(function(ctx)
            local _ <close> = setmetatable({}, { __close = function()
              loop.sleep(0.002)
              closed = closed + 1
            end })
            if i == 4 then
              loop.sleep(0.001)
              error("the problem", 0)
            end
            until_ended(ctx)
          end)
        end
        local ok, err = g:wait()
        assert.is_nil(ok)
        assert.matches("^the problem", err)
        assert.equal(4, closed)
      end)
    end)

    it("counts a task as ended that somebody else closes", function()
      run(function()
        local g = group.new(background)
        local thread
        g:go(function(ctx)
          local co = coroutine.create(function()
            local _ <close> = group.new(ctx)
            until_ended(ctx)
          end)
          thread = co
          coroutine.resume(co)
        end)
        g:go(function()
          loop.sleep(0.001)
          assert(coroutine.close(thread))
        end)
        assert.is_true(g:wait())
        assert.equal("dead", coroutine.status(thread))
      end)
    end)

    it("stops a task that never yields by ctx:call in it", function()
      run(function()
        local g, ctx = group.new((background:with_timeout(0.01)))
        g:go(function(task_ctx)
          task_ctx:call(function() while true do end end)
        end)
        assert.same({ nil, context.DeadlineExceeded }, { g:wait() })
        assert.equal(context.DeadlineExceeded, ctx:err())
      end)
    end)

    it("runs callbacks of its context while it is waited for, or after", function()
      local ran = 0
      run(function()
        local g, ctx = group.new(background)
        ctx:after_func(function() ran = ran + 1 end)
        g:go(function() return nil, "first" end)
        g:go(function(task_ctx)
          until_ended(task_ctx)
          loop.sleep(0.001)
        end)
        assert.same({ nil, "first" }, { g:wait() })
        loop.sleep(0.002)
      end)
      if place:find("attached") then
        return -- in a loop that runs no more
      end
      assert.equal(1, ran)
    end)

    it("leaves no waiter and no timer behind", function()
      run(function()
        for _ = 1, 20 do
          local g <close> = group.new((background:with_timeout(1000)))
          g:set_limit(3)
          for _ = 1, 5 do
            g:go(function() loop.sleep(0) end)
          end
          g:go(function() return nil, "x" end)
          g:wait()
        end
        collectgarbage()
        assert.equal(0, leaks.more("waiters"))
        assert.equal(0, leaks.more("timers"))
      end)
    end)

    it("of 1,000 tasks is fast", function()
      run(function()
        local g = group.new(background)
        g:set_limit(100)
        local count = 0
        for _ = 1, 1000 do
          g:go(function()
            loop.sleep(0)
            count = count + 1
          end)
        end
        assert.is_true(g:wait())
        assert.equal(1000, count)
      end)
    end)
  end)
end

describe("several waiters of a group", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("all get its result", function()
    local results = {}
    loop.run(function()
      local g = group.new(background)
      g:go(function()
        loop.sleep(0.002)
        return nil, "first"
      end)
      for i = 1, 5 do
        loop.spawn(function() results[i] = { g:wait() } end)
      end
      results[6] = { g:wait() }
    end)
    for i = 1, 6 do
      assert.same({ nil, "first" }, results[i])
    end
  end)

  it("at its limit all get a place, and never too many", function()
    local running, most, count = 0, 0, 0
    loop.run(function()
      local g = group.new(background)
      g:set_limit(2)
      local starters = group.new(background)
      for _ = 1, 10 do
        starters:go(function()
          assert(g:go(function()
            running = running + 1
            most = math.max(most, running)
            loop.sleep(0.001)
            running = running - 1
            count = count + 1
          end))
        end)
      end
      assert(starters:wait())
      assert(g:wait())
    end)
    assert.equal(10, count)
    assert.equal(2, most)
  end)
end)

describe("a group at a limit in the main coroutine", function()
  for _, attached in ipairs { "nothing", "luv", "cqueues" } do
    local attach = ({ nothing = "", luv = "luv.attach()", cqueues = "lcqueues.attach(cqueues.new())" })[attached]

    it("of 0 waits until its context ends, with " .. attached .. " attached", function()
      local output = in_child(attach .. [[
        local g = group.new((background:with_timeout(0.01)))
        g:set_limit(0)
        print(g:go(print))
      ]])
      assert.equal("nil\tcontext deadline exceeded\n", output)
    end)

    it("waits no longer than its context, with " .. attached .. " attached", function()
      local output = in_child(attach .. [[
        local g = group.new((background:with_timeout(0.01)))
        g:set_limit(1)
        local over = false
        local release, cancel = context.with_cancel(background)
        g:go(function() release:done():wait() over = true end)
        local ok, err = g:go(print)
        print(ok, err, over)
        cancel()
        print(g:wait())
      ]])
      assert.equal("nil\tcontext deadline exceeded\tfalse\nnil\tcontext deadline exceeded\n", output)
    end)
  end
end)

describe("a group in the main coroutine", function()
  it("is not held up by what else waits in luv", function()
    local output = in_child [[
      luv.attach()
      coroutine.wrap(function() background:with_timeout(1000):done():wait() end)()
      local g = group.new(background)
      g:go(function() print("ran") end)
      print(g:wait())
    ]]
    assert.equal("ran\ntrue\n", output)
  end)

  it("is not held up by other handles of luv", function()
    local output = in_child [[
      luv.attach()
      after(1000000, function() end)
      local g = group.new(background)
      g:go(function() context.select(0.002) print("ran") end)
      g:go(function() print("ran") end)
      print(g:wait())
      os.exit(0)
    ]]
    assert.equal("ran\nran\ntrue\n", output)
  end)

  it("is not held up by what else waits in cqueues", function()
    local output = in_child [[
      local controller = cqueues.new()
      lcqueues.attach(controller)
      controller:wrap(function() background:with_timeout(1000):done():wait() end)
      controller:wrap(function() cqueues.sleep(1000) end)
      local g = group.new(background)
      g:go(function() context.select(0.002) print("ran") end)
      g:go(function() print("ran") end)
      print(g:wait())
    ]]
    assert.equal("ran\nran\ntrue\n", output)
  end)

  it("is not held up by other tasks of the embedded loop", function()
    local output = in_child [[
      loop.spawn(loop.sleep, 1000)
      local g = group.new(background)
      g:go(function() context.select(0.002) print("ran") end)
      g:go(function() print("ran") end)
      print(g:wait())
    ]]
    assert.equal("ran\nran\ntrue\n", output)
  end)

  it("outlives no scope, also when a task that is not of it fails meanwhile", function()
    local output = in_child [[
      loop.spawn(function() loop.sleep(0.001) error("foreign", 0) end)
      local ended = false
      local ok, err = pcall(function()
        local g <close> = group.new(background)
        g:go(function(ctx)
          ctx:done():wait()
          loop.sleep(0.01)
          ended = true
        end)
      end)
      print(ended, tostring(err):match("foreign"))
    ]]
    assert.matches("^true", output)
  end)

  it("goes on with the tasks in a later run of the loop", function()
    local output = in_child [[
      local g = group.new(background)
      g:go(function() loop.sleep(0.002) print("task") end)
      loop.run()
      print(g:wait())
    ]]
    assert.equal("task\ntrue\n", output)
  end)
end)

describe("a group whose coroutine is closed", function()
  it("in the embedded loop has no tasks any more", function()
    local output = in_child [[
      loop.run(function()
        local begun, ended = 0, 0
        local thread
        loop.spawn(function()
          thread = coroutine.running()
          local g <close> = group.new(background)
          for _ = 1, 3 do
            g:go(function(ctx)
              begun = begun + 1
              ctx:done():wait()
              loop.sleep(0.002)
              ended = ended + 1
            end)
          end
          g:wait()
          print("not reached")
        end)
        while begun < 3 do
          coroutine.yield()
        end
        print(coroutine.close(thread))
        print(ended)
        loop.sleep(0.001)
      end)
      print(context.stats().waiters)
    ]]
    assert.equal("true\n3\n0\n", output)
  end)

  for _, attached in ipairs { "nothing", "luv", "cqueues" } do
    local attach = ({ nothing = "", luv = "luv.attach()", cqueues = "lcqueues.attach(cqueues.new())" })[attached]

    it("in the main one, with " .. attached .. " attached, has no tasks any more", function()
      local output = in_child(attach .. [[
        local ended = 0
        local thread = coroutine.create(function()
          local g <close> = group.new(background)
          for _ = 1, 3 do
            g:go(function(ctx)
              ctx:done():wait()
              loop.sleep(0.002)
              ended = ended + 1
            end)
          end
          g:wait()
          print("not reached")
        end)
        assert(coroutine.resume(thread))
        print(coroutine.close(thread))
        print(ended)
        print(context.stats().waiters)
      ]])
      assert.equal("true\n3\n0\n", output)
    end)
  end

  it("in its own luv loop raises, and its tasks are cancelled", function()
    local output = in_child [[
      luv.attach()
      local ended = 0
      local thread = coroutine.create(function()
        local g <close> = group.new(background)
        for _ = 1, 3 do
          g:go(function(ctx)
            ctx:done():wait()
            ended = ended + 1
          end)
        end
        g:wait()
      end)
      assert(coroutine.resume(thread))
      after(2, function()
        local ok, err = coroutine.close(thread)
        print(ok, err:match("cannot wait here"))
      end)
      uv.run()
      print(ended)
    ]]
    assert.equal("false\tcannot wait here\n3\n", output)
  end)

  it("in its own controller raises, and its tasks are cancelled", function()
    local output = in_child [[
      local controller = cqueues.new()
      lcqueues.attach(controller)
      local ended = 0
      local thread
      controller:wrap(function()
        thread = coroutine.create(function()
          local g <close> = group.new(background)
          for _ = 1, 3 do
            g:go(function(ctx)
              ctx:done():wait()
              ended = ended + 1
            end)
          end
          g:wait()
        end)
        assert(coroutine.resume(thread))
        context.select(0.002)
        local ok, err = coroutine.close(thread)
        print(ok, err:match("cannot wait here"))
      end)
      assert(controller:loop())
      print(ended)
    ]]
    assert.equal("false\tcannot wait here\n3\n", output)
  end)
end)

describe("a group in a callback of luv", function()
  it("cannot wait, says so, and its tasks run", function()
    local output = in_child [[
      luv.attach()
      after(1, function()
        local g = group.new(background)
        g:go(function() context.select(0.001) print("ran") end)
        local ok, err = pcall(g.wait, g)
        print(ok, err:match("cannot wait here"))
      end)
      uv.run()
    ]]
    assert.equal("false\tcannot wait here\nran\n", output)
  end)
end)

describe("a failed group that nobody has waited for", function()
  it("warns at scope exit", function()
    local output = in_child [[
      warn("@on")
      loop.run(function()
        local g <close>, ctx = group.new(background)
        g:go(function() return nil, "the problem" end)
        ctx:done():wait()
      end)
      print("over")
    ]]
    assert.matches("a task of a group failed.*the problem", output)
    assert.matches("over\n$", output)
  end)

  it("does not when somebody has", function()
    local output = in_child [[
      warn("@on")
      loop.run(function()
        local g <close> = group.new(background)
        g:go(function() return nil, "the problem" end)
        assert(not g:wait())
      end)
      print("over")
    ]]
    assert.equal("over\n", output)
  end)

  it("warns of whatever the error is", function()
    local output = in_child [[
      warn("@on")
      for _, tostring in ipairs { error, function() return {} end } do
        local over = pcall(loop.run, function()
          local g <close>, ctx = group.new(background)
          g:go(function() error(setmetatable({}, { __tostring = tostring })) end)
          ctx:done():wait()
        end)
        print(over)
      end
    ]]
    assert.matches("a task of a group failed.*true\n.*a task of a group failed.*true\n$", output)
  end)
end)

describe("a group that is dropped", function()
  it("is collected with its context when it has no tasks", function()
    leaks.before()
    for _ = 1, 100 do
      group.new(background)
    end
    leaks.after()
  end)

  it("and whose tasks wait when the process ends does no harm", function()
    for _, attach in ipairs { "", "luv.attach()", "lcqueues.attach(cqueues.new())" } do
      local output = in_child(attach .. [[
        local g = group.new(background)
        for _ = 1, 10 do
          g:go(function(ctx) ctx:done():wait() print("never") end)
        end
        g:go(function() return nil, "x" end)
        coroutine.wrap(function() g:wait() print("never") end)()
        print("over")
        os.exit(0, true)
      ]])
      assert.equal("over\n", output)
    end
  end)
end)
