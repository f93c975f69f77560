-- A hostile script, and the time limit that it cannot escape.
--
-- escape.lua knows many ways to go on for ever: it catches the error that stops it and starts again, hides in
-- coroutines, in message handlers, in __close. Each is tried here under a limit of 0.05 s. A script first gets one
-- error that it may catch, to clean up; what still runs after the grace (0.1 s by default, here 0.02 s) gets it at
-- every instruction. "Stopped after" is thus 0.05 s for who gives in, and 0.07 s for who resists.
--
-- (sandbox.lua adds the other wall, an environment without io and os: lua5.4 examples/sandbox.lua 0.5 FILE.)

local context = require "lcontext"

context.interrupt { grace = 0.02 }

local folder = arg[0]:match("^.*/") or "./"
local attempts = dofile(folder .. "escape.lua")

for _, attempt in ipairs(attempts) do
  local name, f = table.unpack(attempt)
  local start = context.now()
  local ctx <close> = context.with_timeout(context.background(), 0.05)
  local ok, err, trace = ctx:pcall(f)
  assert(not ok and err == context.DeadlineExceeded, name)
  local stuck, from = trace:match("escape%.lua:(%d+): in"), trace:match(".*escape%.lua:(%d+): in")
  print(("%-35s stopped after %.2f s, in line %s, from line %s"):format(name, context.now() - start, stuck, from))
end

print("and we are still here")
