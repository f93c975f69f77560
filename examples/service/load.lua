-- Loads the service with wrk: healthy and with a downstream that hangs, with the deadline and without. Prints the
-- table of the README.
--
--   make service-load        (or: lua5.4 load.lua [SECONDS [CONNECTIONS]], with redis-server, curl and wrk at hand)

package.path = (arg[0]:match("^.*/") or "./") .. "?.lua;" .. package.path

local context = require "lcontext"
local group = require "lcontext.group"
local loop = require "lcontext.loop"
local luv = require "lcontext.luv"
local processes = require "processes"

local SECONDS, CONNECTIONS = tonumber(arg[1]) or 10, tonumber(arg[2]) or 300

-- What the service says of itself while it is under load.
local function sample(stack, loaded)
  local in_flight, resident
  while loop.sleep(0.25, loaded) do
    local numbers = stack:curl("service", "/statistics")
    in_flight, resident = numbers:match("in flight (%d+).*resident (%d+) kB")
  end
  return in_flight, resident
end

local function load_it(stack)
  local loaded, over = context.with_cancel(context.background())
  local measured = {}
  local both = group.new(context.background())
  both:go(function()
    measured.wrk = processes.run("wrk", "-t1", "-c" .. CONNECTIONS, "-d" .. SECONDS .. "s", "--timeout", "60s",
      "--script", processes.folder .. "pause.lua", "--latency", ("http://127.0.0.1:%s/"):format(stack.service.port))
    over()
  end)
  both:go(function()
    measured.in_flight, measured.resident = sample(stack, loaded)
  end)
  assert(both:wait())
  return measured
end

local function row(deadline, health, measured)
  local rate = tonumber(measured.wrk:match("Requests/sec:%s*([%d.]+)"))
  local function latency(percent)
    return rate > 0 and measured.wrk:match(percent .. "%%%s+(%S+)") or "never"
  end
  print(("| %s | %s | %.0f | %s | %s | %s | %.1f MB |"):format(deadline, health, rate, latency(50), latency(99),
    measured.in_flight, measured.resident / 1024))
end

local function load_all()
  print("| deadline | search | answers a second | p50 | p99 | requests in flight | memory |")
  print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
  for _, deadline in ipairs { "0.1", "none" } do
    for _, health in ipairs { "healthy", "hangs" } do
      local stack <close> = processes.start_stack(deadline)
      stack:curl("search", health == "hangs" and "/delay/3600" or "/delay/0")
      row(deadline == "none" and "none" or deadline .. " s", health, load_it(stack))
    end
  end
end

luv.attach()
local loads = group.new(context.background())
loads:go(load_all)
assert(loads:wait())
