-- A value that travels with the context.
--
-- A request gets an id. The id is put into the context once, at the top, and every function below can read it,
-- though none of those in between passes it on or even knows of it. Here two workers, one started by the other,
-- run until they are told to stop, and then each says whose work it was.

local context = require "lcontext"
local loop = require "lcontext.loop"

-- What a package would do: it keeps the key to itself and offers two functions. A key is equal to no other, also
-- to none of the same name, so nobody else can read or hide the value by accident.
local request = {}
do
  local id = context.key("request id")

  function request.with_id(ctx, value)
    return ctx:with_value(id, value)
  end

  function request.id(ctx)
    return ctx:value(id)
  end
end

local function inner_worker(ctx)
  ctx:done():wait()
  print("inner worker: request " .. request.id(ctx) .. ", " .. ctx:err())
end

local function outer_worker(ctx)
  -- The inner worker gets a context of its own, derived from ours: it inherits the value, and the end.
  loop.spawn(inner_worker, ctx:with_timeout(60))
  ctx:done():wait()
  print("outer worker: request " .. request.id(ctx) .. ", " .. ctx:err())
end

loop.run(function()
  local ctx, cancel = request.with_id(context.background(), "r-42"):with_cancel()
  print("the context: " .. tostring(ctx))
  print("its id, asked for by a string of that name: " .. tostring(ctx:value("request id")))
  loop.spawn(outer_worker, ctx)
  loop.sleep(0.2)
  cancel()
end)
