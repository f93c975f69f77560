-- A parent and its children: cancel one, and all below it end.
--
-- Two children tick once a second, each with a context derived from the same parent. After two and a half
-- seconds the parent is cancelled. Nobody has to tell the children: the end of a context is the end of
-- everything derived from it, at once.

local context = require "lcontext"
local loop = require "lcontext.loop"

local start = context.now()

local function say(who, what)
  print(("%.1f s  %-6s  %s"):format(context.now() - start, who, what))
end

local function child(parent, name)
  local ctx <close> = context.with_cancel(parent)
  local ticks = 0
  -- loop.sleep() sleeps until the time is up or the context has ended, whichever is first.
  while loop.sleep(1, ctx) do
    ticks = ticks + 1
    say(name, "tick " .. ticks)
  end
  say(name, ("told to stop: %s, because of %s"):format(ctx:err(), context.cause(ctx)))
end

loop.run(function()
  local parent, cancel = context.with_cancel(context.background())
  loop.spawn(child, parent, "alice")
  loop.spawn(child, parent, "bob")

  loop.sleep(2.5)
  say("parent", "cancel")
  cancel("closing time") -- what is passed here is the cause, and reaches the children too
end)

say("parent", "both are gone") -- loop.run() returns when no task is left
