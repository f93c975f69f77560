-- everything.lua: uses all of the API, for script_memory_test.c, which has every allocation in here fail in turn. So
-- nothing here catches an error. `step` notes what is being used; `light` is a light userdata.
local step, light = ...

step "the module"
local context = require "lcontext"
local loop = require "lcontext.loop"
local group = require "lcontext.group"
local core = require "lcontext.core"
local background = context.background()

-- What fails is not to be taken for what is expected.
local function expect(value, wanted)
  if value ~= wanted then
    error(value == nil and "nil" or value, 0)
  end
end

local function text(ctx)
  return tostring(ctx:cause())
end

local function printable(name)
  return setmetatable({}, { __tostring = function() return name end })
end

step "contexts"
do
  local parent, cancel = context.with_cancel(background)
  local limited = parent:with_timeout(60, "late")
  local other = context.with_deadline(context.todo(), context.now() + 60, printable "late")
  local merged = context.merge(limited, other, parent:without_cancel())
  expect(merged:err(), nil)
  assert(merged:deadline() <= other:deadline() and merged:remaining() > 0)
  cancel(printable "why")
  expect(merged:err(), context.Canceled)
  expect(text(merged), "why")
  expect(context.cause(parent:with_timeout(1)), parent:cause())
  expect(background:with_timeout(0, false):cause(), false)
  expect("" .. other:with_timeout(-1):err(), "context deadline exceeded")
  assert(not merged:err():timeout() and not merged:err():temporary())
end

step "values"
local key = context.key "user"
local keys = { key, context.key(), "string", 1, 1.5, true, false, {}, print, light, coroutine.create(print), io.stdout }
do
  local ctx, many = background, {}
  for i, any in ipairs(keys) do
    ctx = ctx:with_value(any, keys[#keys + 1 - i])
    many[any] = i % 2 == 0 and any or nil
  end
  for i = 1, 40 do
    many[i] = i
  end
  local below = ctx:with_cancel():with_values(many)
  for i, any in ipairs(keys) do
    expect(ctx:value(any), keys[#keys + 1 - i])
  end
  expect(below:value(40), 40)
  expect(below:with_value("string", nil):value "string", nil)
  expect(below:value "nothing", nil)
  for i = 1, 20 do
    below = below:with_value(i, i)
  end
  expect(context.merge(ctx, below):value(20), 20)
end

step "custom contexts"
local function custom(inner)
  return {
    deadline = function() return inner:deadline() end,
    done = function() return inner:done() end,
    err = function() return inner:err() end,
    value = function(_, any) return any == "tenant" and "acme" or inner:value(any) end,
  }
end
do
  local inner, cancel = background:with_value("k", "v"):with_timeout(60)
  local outer = custom(inner)
  local child = context.with_timeout(outer, 120)
  expect(child:value "tenant", "acme")
  expect(child:with_value("k", 2):with_cancel():value "k", 2)
  assert(context.merge(outer, custom(background)):deadline() and core.wrap(outer))
  context.after_func(outer, print)()
  assert(tostring(child))
  cancel()
  expect(child:err(), context.Canceled)
end

step "printing"
do
  local ctx = background:with_value(key, "alice"):with_values({ a = 1, b = {}, [light] = 2 }):with_timeout(60)
  assert(tostring(context.merge(ctx, context.todo()):without_cancel():with_cancel()))
  assert(tostring(key) and tostring(ctx:done()))
end

step "Dones"
do
  local live = context.with_cancel(background):done()
  assert(live:pollfd() and live:getfd() and live:events() and not live:dirty())
  expect(live:timeout(), nil)
  expect(live:wait(0), false)
  local done = context.with_timeout(background, 0.0005):done()
  expect(done:wait(), true)
  expect(done:closed(), true)
  expect(context.select(live, done, nil, 5), done)
  expect(context.select(live, nil, 0.0001), 0.0001)
end

step "Dones in coroutines"
do
  local ctx, cancel = context.with_cancel(background)
  local live = context.with_cancel(background)
  local wait = coroutine.wrap(function()
    return ctx:done():wait(60)
  end)
  local select = coroutine.wrap(function()
    return context.select(live:done(), ctx:done(), 60)
  end)
  expect(wait(), ctx:done())
  expect(select(), live:done())
  expect(wait(), ctx:done())
  cancel(printable "over")
  expect(wait(), true)
  expect(select(), ctx:done())
end

step "callbacks"
do
  local calls = 0
  local function call()
    calls = calls + 1
  end
  local parent <close> = context.with_cancel(background)
  local ctx, cancel = parent:with_timeout(60)
  local stop = ctx:after_func(call)
  ctx:after_func(call)
  context.merge(ctx, parent):after_func(call)
  assert(background:after_func(call)() and stop() and not stop())
  cancel()
  local soon = context.with_timeout(background, 0.0005)
  soon:after_func(call)
  assert(type(context.pollfd()) == "number")
  while context.dispatch(1) == 0 and not soon:err() do end
  context.dispatch()
  expect(calls, 3)
  do
    local dropped = context.with_cancel(background)
    dropped:after_func(call)
  end
  collectgarbage()
  context.dispatch()
  expect(calls, 4)
end

step "sharing"
local function share_all()
  local parent, cancel = background:with_value("k", "v"):with_value("t", {}):with_cancel()
  local ctx = parent:with_timeout(60, printable "late"):with_value("x", 1)
  local ended, stop = context.merge(parent, custom(parent)):with_cancel()
  stop(printable "ended")
  assert(ended:share())
  local token = assert(ctx:share(cancel))
  expect(token, ctx:share(cancel))
  local same, cancel_same = context.adopt(token)
  expect(same, ctx)
  for _ = 1, 70 do
    assert(context.with_cancel(parent):share())
  end
  return token, cancel_same, ended
end
do
  local token, cancel, ended = share_all()
  collectgarbage()
  cancel(printable "shared")
  expect(context.adopt(token), nil)
  expect(text(context.adopt(ended:share())), "ended")
end

step "the loop"
do
  local log = {}
  local ctx, cancel = context.with_cancel(background)
  local function add(what)
    log[#log + 1] = what
  end
  loop.spawn(function()
    coroutine.yield(ctx:done(), 60)
    add(loop.sleep(0.0001))
    add(context.select(ctx:done(), 1))
  end)
  loop.spawn(add, "task")
  ctx:after_func(function() add "callback" end)
  loop.run(function()
    coroutine.yield()
    expect(loop.sleep(0.0001, ctx), true)
    local sleeping = ctx:with_cancel()
    loop.spawn(cancel, "over")
    expect(loop.sleep(60, sleeping), nil)
  end)
  expect(#log, 4)
end

step "groups"
do
  local g, ctx = group.new(context.with_timeout(background, 60))
  g:set_limit(2)
  for i = 1, 3 do
    g:go(function(of_task)
      expect(of_task, ctx)
      coroutine.yield()
      return i < 3 or nil, i == 3 and printable "third" or nil
    end)
    assert(i ~= 2 or g:try_go(print) == false)
  end
  local ok, err = g:wait()
  expect(ok, nil)
  expect(type(err) == "string" and err or tostring(err), "third")
  local scoped <close> = group.new(background)
  scoped:go(function() loop.sleep(0.0001) end)
  assert(scoped:wait())
end

step "figures"
do
  local stats = context.stats()
  assert(stats.contexts >= stats.live and stats.timers and stats.callbacks and stats.waiters)
  context.interrupt(context.interrupt())
  assert(context._VERSION)
end

step "the end"
return background:with_timeout(60):done(), background:with_timeout(60):after_func(step)
