-- The service. For each request it asks three others at once, within one deadline, and answers with what has
-- come in time.
--
--   lua5.4 service.lua REDIS_PORT PRICES_PORT SEARCH_PORT [DEADLINE [PORT]]
--
-- DEADLINE is in seconds (0.1 if none is given); "none" shows what happens without one.

package.path = arg[0]:match("^.*/") .. "?.lua;" .. package.path

local context = require "lcontext"
local group = require "lcontext.group"
local http = require "http"
local pool = require "pool"
local redis = require "redis"
local server = require "server"

local redis_port, prices_port, search_port = tonumber(arg[1]), tonumber(arg[2]), tonumber(arg[3])
local deadline = arg[4] == "none" and math.huge or tonumber(arg[4]) or 0.1
local port = tonumber(arg[5]) or 0

-- ---- Who a request is from: kept in its context, for whoever needs it further down --------------------------------

local id_key <const> = context.key("request id")
local last_id = 0

local function with_new_id(ctx)
  last_id = last_id + 1
  return ctx:with_value(id_key, "r-" .. last_id)
end

local function id_of(ctx)
  return ctx:value(id_key)
end

-- ---- Downstream ----------------------------------------------------------------------------------------------

local profiles = pool.new("127.0.0.1", redis_port)
local prices = pool.new("127.0.0.1", prices_port)
local search = pool.new("127.0.0.1", search_port)

local function get(connection, ctx)
  return http.get(connection, ctx, "/", id_of(ctx))
end

local downstreams = {
  { name = "profile", ask = function(ctx) return profiles:ask(ctx, redis.get, "profile") end },
  { name = "prices", ask = function(ctx) return prices:ask(ctx, get) end },
  { name = "search", ask = function(ctx) return search:ask(ctx, get) end },
}

-- Asks all of them. One that fails does not end the others: a task here has nothing to return.
local function ask_all(ctx)
  local answers, failures = {}, {}
  local asking <close> = group.new(ctx)
  for _, downstream in ipairs(downstreams) do
    asking:go(function(task_ctx)
      local answer, err = downstream.ask(task_ctx)
      answers[downstream.name] = answer
      failures[downstream.name] = not answer and tostring(task_ctx:cause() or err) or nil
    end)
  end
  asking:wait()
  return answers, failures
end

-- ---- The handler ---------------------------------------------------------------------------------------------

local in_flight, most_in_flight, abandoned = 0, 0, 0

local function report(ctx, answers, failures)
  local lines = { "request " .. id_of(ctx) }
  for _, downstream in ipairs(downstreams) do
    local name = downstream.name
    lines[#lines + 1] = ("%s: %s"):format(name, answers[name] or "missing, " .. failures[name])
  end
  return table.concat(lines, "\n") .. "\n"
end

local function handle(connection_ctx)
  local ctx <close> = with_new_id(connection_ctx):with_timeout(deadline)
  in_flight = in_flight + 1
  most_in_flight = math.max(most_in_flight, in_flight)
  local answers, failures = ask_all(ctx)
  in_flight = in_flight - 1
  if connection_ctx:err() then
    abandoned = abandoned + 1
  end
  return 200, report(ctx, answers, failures)
end

local function kilobytes_resident()
  local status <close> = assert(io.open("/proc/self/status"))
  return status:read("a"):match("VmRSS:%s*(%d+)")
end

local function statistics()
  return ("in flight %d, most %d, abandoned %d, contexts %d, resident %d kB\n"):format(
    in_flight, most_in_flight, abandoned, context.stats().contexts, kilobytes_resident())
end

local function close_pools()
  for _, connections in ipairs { profiles, prices, search } do
    connections:close()
  end
end

server.run(port, function(ctx, request)
  if request.path == "/statistics" then
    return 200, statistics()
  end
  return handle(ctx)
end, close_pools)
print("stopped")
