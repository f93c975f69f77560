-- A handler with a deadline: who is first?
--
-- A handler is given a context and waits for two things at once: for its own work, and for the end of the
-- context. The same handler is called twice with a deadline of one second. Work of half a second is done in
-- time. Work of two seconds is given up when the second has passed, and err() says why.

local context = require "lcontext"

-- The work is only a pause here. context.select() waits for the first of its arguments and returns it: the
-- Done of the context, when the context has ended, or the number, when so many seconds have passed.
local function handle(ctx, seconds)
  if context.select(ctx:done(), seconds) == ctx:done() then
    return nil, ctx:err()
  end
  return "done"
end

local function serve(seconds)
  local start = context.now()

  -- <close> gives back what the context holds (its timer) however this function is left.
  local ctx <close> = context.with_timeout(context.background(), 1)
  local result, err = handle(ctx, seconds)

  print(("work of %.1f s: %s after %.2f s"):format(seconds, result or "given up", context.now() - start))
  print("  err() is " .. tostring(ctx:err())) -- nil as long as the context is live

  -- The two reasons for an end are values, to be compared with ==.
  if err == context.DeadlineExceeded then
    print("  which is context.DeadlineExceeded")
  else
    print(("  %.2f s were left"):format(ctx:remaining()))
  end
end

serve(0.5)
serve(2)
