rockspec_format = "3.0"
package = "lcontext"
version = "0.1.0-1"
source = {
  url = "git+https://github.com/lcontext/lcontext.git",
  tag = "v0.1.0",
}
description = {
  summary = "Go's context for Lua: cancellation, deadlines and request-scoped values",
  detailed = [[
    A tree of contexts with cancellation that flows down, deadlines, causes,
    callbacks and values, in a thread-safe C core, for Lua 5.4. Contexts are
    userdata that the collector cancels; coroutines yield on ctx:done().
  ]],
  license = "MIT",
}
dependencies = { "lua >= 5.4, < 5.5" }
build = {
  type = "builtin",
  modules = {
    ["lcontext"] = "lua/lcontext/init.lua",
    ["lcontext.cqueues"] = "lua/lcontext/cqueues.lua",
    ["lcontext.group"] = "lua/lcontext/group.lua",
    ["lcontext.loop"] = "lua/lcontext/loop.lua",
    ["lcontext.luv"] = "lua/lcontext/luv.lua",
    ["lcontext.tasks"] = "lua/lcontext/tasks.lua",
    ["lcontext.types"] = "lua/lcontext/types.lua",
    ["lcontext.core"] = {
      sources = {
        "csrc/bind/api.c",
        "csrc/bind/callback.c",
        "csrc/bind/context.c",
        "csrc/bind/coroutine.c",
        "csrc/bind/custom.c",
        "csrc/bind/describe.c",
        "csrc/bind/dispatch.c",
        "csrc/bind/done.c",
        "csrc/bind/errors.c",
        "csrc/bind/guard.c",
        "csrc/bind/interrupt.c",
        "csrc/bind/key.c",
        "csrc/bind/module.c",
        "csrc/bind/own.c",
        "csrc/bind/share.c",
        "csrc/bind/state.c",
        "csrc/bind/value.c",
        "csrc/bind/wire.c",
        "csrc/core/after.c",
        "csrc/core/any.c",
        "csrc/core/bell.c",
        "csrc/core/clock.c",
        "csrc/core/context.c",
        "csrc/core/copy.c",
        "csrc/core/gate.c",
        "csrc/core/key.c",
        "csrc/core/layer.c",
        "csrc/core/lock.c",
        "csrc/core/mailbox.c",
        "csrc/core/map.c",
        "csrc/core/notifier.c",
        "csrc/core/park.c",
        "csrc/core/pin.c",
        "csrc/core/share.c",
        "csrc/core/timer.c",
        "csrc/core/tree.c",
      },
      libraries = { "m", "pthread" },
    },
  },
  install = {
    conf = { -- the headers for C modules and hosts: `luarocks show --rock-dir lcontext`/conf
      ["lcontext.h"] = "csrc/core/lcontext.h",
      ["lcontext_lua.h"] = "csrc/bind/lcontext_lua.h",
    },
  },
  copy_directories = { "doc", "examples" },
}
test = {
  type = "command",
  command = "make test",
}
