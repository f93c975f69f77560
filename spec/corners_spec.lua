local context = require "lcontext"
local core = require "lcontext.core"
local uv = require "luv"
local child_process = require "spec.support.child"

local background = context.background()

-- Runs f in a Lua state of its own, with a token and the name of a file that it may write to; returns what it wrote.
local function in_other_state(f, token)
  local name = os.tmpname()
  assert(uv.new_thread(f, token, name)):join()
  local file <close> = assert(io.open(name))
  os.remove(name)
  return file:read "a"
end

describe("coroutine.resume", function()
  local many <const> = 600000

  it("refuses more arguments than the coroutine has room for", function()
    local co = coroutine.create(function(...)
      return select("#", coroutine.yield(), ...)
    end)
    assert(coroutine.resume(co, table.unpack({}, 1, many)))
    local ok, err = coroutine.resume(co, table.unpack({}, 1, many))
    assert.is_false(ok)
    assert.equal("too many arguments to resume", err)
    coroutine.close(co)
  end)

  it("refuses more results than there is room for", function()
    local co = coroutine.create(function()
      return table.unpack({}, 1, many)
    end)
    local function resume(...)
      local ok, err = coroutine.resume(co)
      return ok, err, ...
    end
    local ok, err = resume(table.unpack({}, 1, many - 200000))
    assert.is_false(ok)
    assert.equal("too many results to resume", err)
  end)
end)

describe("an error object", function()
  it("is concatenated with what has a __tostring", function()
    local printable = setmetatable({}, { __tostring = function() return "printable" end })
    assert.equal("context canceled" .. "printable", context.Canceled .. printable)
    assert.equal("printable" .. "context canceled", printable .. context.Canceled)
  end)
end)

describe("a guard", function()
  it("is not confused by a script that calls its metamethods", function()
    local ctx <close> = context.with_cancel(background)
    ctx:call(function()
      local _, guard = debug.getlocal(2, 2)
      assert.equal("guard", getmetatable(guard))
      local metatable = debug.getmetatable(guard)
      for _, wrong in ipairs { {}, 1, io.stdout, ctx } do
        metatable.__close(wrong)
        metatable.__gc(wrong)
      end
    end)
  end)

  it("in count mode leaves its hook in a coroutine made inside until that runs", function()
    local before = context.interrupt()
    context.interrupt { mode = "count", count = 10 }
    local ctx <close> = context.with_cancel(background)
    local co
    ctx:call(function()
      co = coroutine.create(function()
        for _ = 1, 100 do end
        return debug.gethook()
      end)
    end)
    context.interrupt(before)
    assert.same({ true }, { coroutine.resume(co) })
  end)

  it("is refused in a state that is being closed", function()
    local output, status = child_process.run [[
      local ctx
      early = setmetatable({}, { __gc = function()
        print(select(2, pcall(ctx.pcall, ctx, print)))
        print(select(2, pcall(ctx.after_func, ctx, print)))
      end })
      ctx = require "lcontext".background()
    ]]
    assert.equal(0, status, output)
    assert.matches("the Lua state is being closed", output)
  end)
end)

describe("a context that was collected", function()
  it("cannot be shared by a finalizer that comes later", function()
    local message
    do
      local finalized = setmetatable({}, { __gc = function(self)
        message = select(2, pcall(self.ctx.share, self.ctx))
      end })
      finalized.ctx = context.with_cancel(background)
    end
    collectgarbage()
    assert.matches("the context was collected", message)
  end)

  it("has its callbacks run, when a finalizer that came earlier has dispatched", function()
    local log = {}
    local before = core.attach { resume = function() end, spawn = function(f) f() end, step = function() end }
    do
      for i = 1, 2 do
        local ctx, cancel = context.with_cancel(background)
        ctx:after_func(function() log[#log + 1] = i end)
        cancel()
      end
      setmetatable({}, { __gc = function() context.dispatch() end })
    end
    collectgarbage()
    context.dispatch()
    core.attach(before)
    table.sort(log)
    assert.same({ 1, 2 }, log)
  end)
end)

describe("a custom context of another state", function()
  it("answers nothing, and prints as custom", function()
    local inner, cancel = background:with_value("k", "v"):with_cancel()
    local custom = {
      deadline = function() end,
      done = function() return inner:done() end,
      err = function() return inner:err() end,
      value = function(_, key) return inner:value(key) end,
    }
    local child = context.with_cancel(custom)
    assert.equal("v", child:value "k")
    local answer = in_other_state(function(token, name)
      local ctx = require("lcontext").adopt(token)
      local file <close> = io.open(name, "w")
      file:write(tostring(ctx:value "k"), " ", tostring(ctx))
    end, child:share())
    assert.matches("^nil .*custom", answer)
    cancel()
  end)
end)
