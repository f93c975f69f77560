local context = require "lcontext"
local child_process = require "spec.support.child"
local leaks = require "spec.support.leaks"

local background = context.background()

describe("with_value", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("gives the value to the context and all below", function()
    local ctx = background:with_value("user", "alice")
    assert.equal("alice", ctx:value("user"))
    assert.equal("alice", (ctx:with_cancel():with_timeout(10):value("user")))
    assert.equal("alice", ctx:without_cancel():value("user"))
    assert.is_nil(background:value("user"))
    assert.is_nil(ctx:value("other"))
  end)

  it("leaves the parent as it is", function()
    local parent = background:with_value("k", 1)
    local child = parent:with_value("k", 2)
    assert.equal(1, parent:value("k"))
    assert.equal(2, child:value("k"))
  end)

  it("takes false as a value and nil as a mask", function()
    local outer = background:with_value("k", "outer")
    assert.is_false(outer:with_value("k", false):value("k"))
    assert.is_nil(outer:with_value("k", nil):value("k"))
    assert.is_nil(outer:with_value("k"):value("k"))
    assert.equal("inner", outer:with_value("k", nil):with_value("k", "inner"):value("k"))
    local deep = outer:with_value("k", nil)
    for i = 1, 100 do
      deep = deep:with_value(i, i)
    end
    assert.is_nil(deep:value("k"))
  end)

  it("keeps values of every type as they are", function()
    local co = coroutine.create(print)
    local light = debug.upvalueid(function() return co end, 1)
    for _, value in ipairs { "", "text", "a\0b", 1, 1.0, 0.1, math.mininteger, math.huge, true, false, {}, print, co,
      io.stdout, light, background, context.Canceled, context.key(), ("x"):rep(100000) } do
      local got = background:with_value("k", value):value("k")
      assert.equal(value, got)
      assert.equal(math.type(value), math.type(got))
    end
    local nan = background:with_value("k", 0 / 0):value("k")
    assert.is_true(nan ~= nan)
  end)

  it("stays after the end", function()
    local ctx, cancel = background:with_value("k", { 1 }):with_cancel()
    cancel()
    collectgarbage()
    assert.same({ 1 }, ctx:value("k"))
  end)

  it("keeps an object alive as long as a context that sees it", function()
    local weak = setmetatable({}, { __mode = "v" })
    weak[1] = {}
    local ctx = background:with_value("k", weak[1]):with_cancel():with_value("l", 1)
    collectgarbage()
    assert.equal(weak[1], ctx:value("k"))
    ctx = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.is_nil(weak[1])
  end)
end)

describe("keys", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("of context.key are equal to no other", function()
    local one, two = context.key("user"), context.key("user")
    local ctx = background:with_value(one, 1)
    assert.equal(1, ctx:value(one))
    assert.is_nil(ctx:value(two))
    assert.is_nil(ctx:value("user"))
    assert.equal(2, ctx:with_value(two, 2):value(two))
    assert.equal(1, ctx:with_value(two, 2):value(one))
    assert.is_false(one == two)
  end)

  it("of context.key print as their name", function()
    assert.equal("user", tostring(context.key("user")))
    assert.equal("12", tostring(context.key(12)))
    assert.equal("", tostring(context.key("")))
    assert.equal("a\0b", tostring(context.key("a\0b")))
    assert.is_string(tostring(context.key()))
    assert.is_string(tostring(context.key(nil)))
    assert.equal(100000, #tostring(context.key(("x"):rep(100000))))
  end)

  it("of context.key stay what they are when only a context holds them", function()
    local ctx = background:with_value(context.key("gone"), 1)
    collectgarbage()
    collectgarbage()
    assert.equal("context.Background.WithValue(gone, number)", tostring(ctx))
    for _ = 1, 1000 do
      assert.is_nil(ctx:value(context.key("gone")))
    end
  end)

  it("that are strings compare by content, however they were made", function()
    local ctx = background:with_value(("ab"):rep(100), 1)
    assert.equal(1, ctx:value(("abab"):rep(50)))
    assert.is_nil(ctx:value(("ab"):rep(99)))
    assert.equal(2, background:with_value("", 2):value(""))
    assert.equal(3, background:with_value("a\0b", 3):value("a\0b"))
    assert.is_nil(background:with_value("a\0b", 3):value("a\0c"))
    assert.is_nil(background:with_value("a\0b", 3):value("a"))
  end)

  it("1 and 1.0 are one, 1 and \"1\" are not", function()
    local ctx = background:with_value(1, "one")
    assert.equal("one", ctx:value(1.0))
    assert.is_nil(ctx:value("1"))
    assert.is_nil(ctx:value(true))
    assert.equal("one", background:with_value(1.0, "one"):value(1))
    assert.equal("zero", background:with_value(0, "zero"):value(-0.0))
    assert.equal("big", background:with_value(2 ^ 53, "big"):value(1 << 53))
    assert.equal("min", background:with_value(-2 ^ 63, "min"):value(math.mininteger))
    assert.is_nil(background:with_value(math.maxinteger, "max"):value(2 ^ 63))
    assert.equal("half", background:with_value(0.5, "half"):value(0.5))
    assert.equal("inf", background:with_value(math.huge, "inf"):value(math.huge))
    assert.is_nil(background:with_value(math.huge, "inf"):value(-math.huge))
  end)

  it("may be booleans", function()
    local ctx = background:with_value(true, "yes"):with_value(false, "no")
    assert.equal("yes", ctx:value(true))
    assert.equal("no", ctx:value(false))
    assert.is_nil(ctx:value("true"))
  end)

  it("may be any object, by raw equality", function()
    local equal = { __eq = function() return true end }
    local one, two = setmetatable({}, equal), setmetatable({}, equal)
    local ctx = background:with_value(one, 1)
    assert.equal(1, ctx:value(one))
    assert.is_nil(ctx:value(two))
    local function f() return one end
    local co = coroutine.create(f)
    for _, key in ipairs { f, co, io.stdout, print, background, ctx, context.Canceled, context } do
      assert.is_nil(ctx:value(key))
      assert.equal("v", ctx:with_value(key, "v"):value(key))
      assert.is_nil(ctx:value(key))
    end
  end)

  it("may be light userdata", function()
    local a, b = 1, 2
    local function f() return a, b end
    local one, two = debug.upvalueid(f, 1), debug.upvalueid(f, 2)
    assert.equal("userdata", type(one))
    local ctx = background:with_value(one, "one")
    assert.equal("one", ctx:value(one))
    assert.equal("one", ctx:value(debug.upvalueid(f, 1)))
    assert.is_nil(ctx:value(two))
    assert.equal("two", ctx:with_values { [two] = "two" }:value(two))
    assert.equal("context.Background.WithValue(userdata, one)", tostring(ctx))
    assert.equal(one, background:with_value(two, one):value(two))
  end)

  it("nil and NaN find nothing", function()
    local ctx = background:with_value("k", 1)
    assert.is_nil(ctx:value(nil))
    assert.is_nil(ctx:value())
    assert.is_nil(ctx:value(0 / 0))
    assert.is_nil(background:value(nil))
  end)

  it("that nobody has used cost nothing that stays", function()
    local ctx = background:with_value("k", 1)
    for i = 1, 1000 do
      assert.is_nil(ctx:value("unused" .. i))
      assert.is_nil(ctx:value({}))
      assert.is_nil(ctx:value(i + 0.5))
    end
    collectgarbage()
    collectgarbage()
    local before = collectgarbage("count")
    for i = 1, 20000 do
      ctx:value("other" .. i)
      ctx:value({})
    end
    collectgarbage()
    collectgarbage()
    assert.is_true(collectgarbage("count") - before < 100)
  end)

  it("that are tables are garbage when nothing else holds them", function()
    local weak = setmetatable({}, { __mode = "k" })
    local ctx = background
    for _ = 1, 100 do
      local key = {}
      weak[key] = true
      ctx = ctx:with_value(key, 1)
    end
    collectgarbage()
    ctx = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.is_nil(next(weak))
  end)

  it("that are tables are not mixed up when addresses are used again", function()
    for i = 1, 2000 do
      local ctx = background:with_value({}, i)
      assert.is_nil(ctx:value({}))
      if i % 100 == 0 then
        collectgarbage()
      end
    end
  end)
end)

describe("with_values", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("holds many keys in one layer", function()
    local key, t, f = context.key("k"), {}, function() end
    local ctx = context.with_values(background, {
      [key] = "key", [t] = "table", [f] = f, [1] = "one", [2.5] = "float", [true] = "yes", [false] = false,
      s = "string",
    })
    assert.equal("key", ctx:value(key))
    assert.equal("table", ctx:value(t))
    assert.equal(f, ctx:value(f))
    assert.equal("one", ctx:value(1))
    assert.equal("one", ctx:value(1.0))
    assert.equal("float", ctx:value(2.5))
    assert.equal("yes", ctx:value(true))
    assert.is_false(ctx:value(false))
    assert.equal("string", ctx:value("s"))
    assert.is_nil(ctx:value("t"))
    assert.equal(1, leaks.more("contexts"))
  end)

  it("copies the table", function()
    local t = { a = 1, b = { 2 } }
    local ctx = context.with_values(background, t)
    t.a, t.c, t.b = 5, 6, nil
    collectgarbage()
    assert.equal(1, ctx:value("a"))
    assert.same({ 2 }, ctx:value("b"))
    assert.is_nil(ctx:value("c"))
  end)

  it("looks at the table itself, not at what its metatable says", function()
    local t = setmetatable({ a = 1 }, { __index = { b = 2 }, __pairs = error, __len = error, __metatable = false })
    local ctx = background:with_values(t)
    assert.equal(1, ctx:value("a"))
    assert.is_nil(ctx:value("b"))
  end)

  it("shadows and is shadowed", function()
    local ctx = background:with_value("a", 1):with_values { a = 2, b = 3 }
    assert.equal(2, ctx:value("a"))
    assert.equal(4, ctx:with_value("a", 4):value("a"))
    assert.is_nil(ctx:with_value("a", nil):value("a"))
  end)

  it("may be empty and may be large", function()
    assert.is_nil(background:with_values({}):value("a"))
    assert.equal(1, background:with_value("a", 1):with_values({}):value("a"))
    local large = {}
    for i = 1, 20000 do
      large["key" .. i] = i % 2 == 0 and i or { i }
    end
    local ctx = background:with_value("key1", "outer"):with_values(large):with_value("key2", "inner")
    collectgarbage()
    for i = 3, 20000 do
      assert(ctx:value("key" .. i) == large["key" .. i])
    end
    assert.equal(large.key1, ctx:value("key1"))
    assert.equal("inner", ctx:value("key2"))
  end)

  it("survives finalizers that fill the table meanwhile", function()
    local output, status = child_process.run [[
      local context = require "lcontext"
      collectgarbage("generational")
      for round = 1, 60 do
        local t, n = {}, 0
        for i = 1, 2000 do
          t["first" .. round .. "_" .. i] = i
        end
        for _ = 1, 3000 do
          setmetatable({}, { __gc = function()
            n = n + 1
            if n < 50 then
              for i = 1, 300 do
                t["late" .. n .. "_" .. i] = i
              end
            end
          end })
        end
        pcall(context.with_values, context.background(), t) -- may raise, must not crash
      end
      collectgarbage()
      os.exit(0, true)
    ]]
    assert.equal(0, status, output)
  end)
end)

describe("lookups", function()
  before_each(leaks.before)
  after_each(leaks.after)

  it("agree with a model, at every depth up to 2000", function()
    local seed = os.time()
    math.randomseed(seed)
    local keys = {}
    for i = 1, 60 do
      keys[i] = i % 6 == 0 and context.key("k" .. i) or i % 6 == 1 and "string" .. i or i % 6 == 2 and i
        or i % 6 == 3 and i + 0.5 or i % 6 == 4 and {} or function() return i end
    end
    keys[61], keys[62] = true, false
    local unset = {}
    local model, ctx = {}, background
    local chain = {}
    for depth = 1, 2000 do
      local kind = math.random(10)
      if kind <= 6 then
        local key, value = keys[math.random(#keys)], math.random(4)
        value = value == 1 and unset or value == 2 and depth or value == 3 and { depth } or "v" .. depth
        model = setmetatable({ [key] = value }, { __index = model })
        if value == unset then
          ctx = ctx:with_value(key, nil)
        else
          ctx = ctx:with_value(key, value)
        end
      elseif kind == 7 then
        local layer = {}
        for _ = 1, math.random(0, 20) do
          layer[keys[math.random(#keys)]] = depth
        end
        ctx = ctx:with_values(layer)
        model = setmetatable(layer, { __index = model })
      elseif kind == 8 then
        ctx = ctx:with_cancel()
      elseif kind == 9 then
        ctx = ctx:without_cancel()
      else
        ctx = ctx:merge(background)
      end
      if depth % 100 == 0 then -- flatten the model
        local flat = {}
        for _, key in ipairs(keys) do
          flat[key] = model[key]
        end
        model = flat
      end
      chain[depth] = { ctx, model }
    end
    collectgarbage()
    for depth, pair in ipairs(chain) do
      for _, key in ipairs(keys) do
        local expected = pair[2][key]
        if expected == unset then
          expected = nil
        end
        local got = pair[1]:value(key)
        if got ~= expected then
          error(("seed %d, depth %d, key %s: %s expected, got %s"):format(seed, depth, key, expected, got))
        end
      end
    end
  end)

  it("do not become slower with depth", function()
    local function seconds(depth)
      local ctx = background:with_value("wanted", 1)
      for i = 1, depth do
        ctx = ctx:with_value(i, i)
      end
      local start = os.clock()
      for _ = 1, 20000 do
        ctx:value("wanted")
      end
      return os.clock() - start
    end
    seconds(10)
    assert.is_true(seconds(5000) < seconds(50) * 20 + 0.5)
  end)
end)
