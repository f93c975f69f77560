-- The C API as C programs meet it: the examples in examples/c, built against an installation of its own (build/stage)
-- with what pkg-config says.

local root = debug.getinfo(1, "S").source:match("^@(.*)spec/") or ""
local context = require "lcontext"
local busy = require "spec.support.busy"
local child = require "spec.support.child"

local function run(command)
  local pipe = assert(io.popen(command .. " 2>&1"))
  local output = pipe:read("a")
  local _, _, status = pipe:close()
  return output, status
end

describe("a C program without Lua", function()
  for _, program in ipairs { "search", "search-static" } do
    it(program .. " ends its threads when one has found something", function()
      local output, status = run(root .. "build/c/" .. program .. " 600")
      assert.matches("^found: mix%(%d+%) ends in c0ffee\n$", output)
      assert.equal(0, status)
    end)

    it(program .. " gives up at its deadline", function()
      busy.again(function() -- it may find something before it looks at the clock
        local output, status = run(root .. "build/c/" .. program .. " 0.001")
        assert.equal("given up: context deadline exceeded\n", output)
        assert.equal(1, status)
      end)
    end)
  end

  it("finds the library through pkg-config", function()
    local output = run("PKG_CONFIG_PATH=" .. root .. "build/stage/lib/pkgconfig pkg-config --modversion lcontext")
    assert.equal(context._VERSION .. "\n", output)
  end)
end)

describe("a host that embeds Lua", function()
  it("gives each request a context with a deadline, and stops the script with it", function()
    busy.again(function() -- a quick request may take longer than its 0.1 s
      local output, status = run(("%sbuild/c/host %sexamples/c/script.lua"):format(root, root))
      assert.equal("r-1: answer: quick, for r-1\n" ..
        "r-2: failed: context deadline exceeded\n" ..
        "r-3: answer: quick again, for r-3\n", output)
      assert.equal(0, status)
    end)
  end)

  it("gets a message when a script is wrong", function()
    local output, status = run(root .. "build/c/host /nowhere.lua")
    assert.matches("cannot open /nowhere.lua", output)
    assert.equal(1, status)
  end)
end)

describe("a C module that takes a context", function()
  local background = context.background()
  local checksum, path

  setup(function()
    checksum = assert(package.loadlib(root .. "build/c/checksum.so", "luaopen_checksum"))()
    path = os.tmpname()
    local file <close> = assert(io.open(path, "w"))
    file:write("123456789")
  end)

  teardown(function()
    os.remove(path)
  end)

  it("does its work", function()
    assert.equal(0xCBF43926, checksum.crc32(background, path))
    assert.equal(0xCBF43926, checksum.crc32(background:with_timeout(60), path))
  end)

  it("takes a custom context", function()
    local ctx, cancel = context.with_cancel(background)
    local custom = {
      deadline = function() end,
      done = function() return ctx:done() end,
      err = function() return ctx:err() end,
      value = function() end,
    }
    assert.equal(0xCBF43926, checksum.crc32(custom, path))
    cancel()
    assert.same({ nil, context.Canceled }, { checksum.crc32(custom, path) })
  end)

  it("gives up when the context ends", function()
    assert.same({ nil, context.DeadlineExceeded }, { checksum.crc32(background:with_timeout(0), path) })
    assert.same({ nil, context.DeadlineExceeded }, { checksum.crc32(background:with_timeout(0.02), "/dev/zero") })
  end)

  it("gets errors of its own through", function()
    local crc, err = checksum.crc32(background, "/nowhere")
    assert.is_nil(crc)
    assert.equal("/nowhere: No such file or directory", err)
    assert.error_matches(function() checksum.crc32(5, path) end, "bad argument #1 .*context expected, got number")
    assert.error_matches(function() checksum.crc32(nil, path) end, "context expected, got nil")
    assert.error_matches(function() checksum.crc32({}, path) end, "context expected, got table")
    assert.error_matches(function() checksum.crc32() end, "context expected, got no value")
  end)

  it("loads lcontext if nobody has", function()
    local output, status = child.run(([[
      local checksum = package.loadlib('%sbuild/c/checksum.so', 'luaopen_checksum')()
      print(package.loaded['lcontext.core'] ~= nil, checksum.crc32(require('lcontext').background(), '%s'))
    ]]):format(root, path))
    assert.equal(0, status, output)
    assert.matches("true\t3421780262", output)
  end)
end)

describe("a second copy of the core", function()
  local copy

  setup(function()
    copy = os.tmpname() .. ".so"
    assert(os.execute(("cp '%sbuild/lcontext/core.so' '%s'"):format(root, copy)))
  end)

  teardown(function()
    os.remove(copy)
  end)

  it("is refused with a message that says where the first one is", function()
    local output, status = child.run(("require 'lcontext'\n" ..
      "local open = assert(package.loadlib('%s', 'luaopen_lcontext_core'))\n" ..
      "print(pcall(open))"):format(copy))
    assert.equal(0, status, output)
    assert.matches("false\tthere is another copy of lcontext in this process, in .*core.so: its contexts", output)
  end)

  it("is refused beside liblcontext, too", function()
    local output, status = child.run(("assert(package.loadlib('%sbuild/stage/lib/liblcontext.so', '*'))\n" ..
      "print(pcall(require, 'lcontext'))"):format(root))
    assert.equal(0, status, output)
    assert.matches("false\tthere is another copy of lcontext in this process, in .*liblcontext.so", output)
  end)
end)
