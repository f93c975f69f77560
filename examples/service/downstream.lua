-- A downstream service: answers after a while.
--
--   lua5.4 downstream.lua NAME [PORT]
--
-- GET /delay/SECONDS sets how long it takes from now on, GET /report says how it went. It counts the requests that
-- were given up by who had asked.

package.path = arg[0]:match("^.*/") .. "?.lua;" .. package.path

local loop = require "lcontext.loop"
local server = require "server"

local name, port = arg[1], tonumber(arg[2]) or 0
local delay, waiting, answered, abandoned = 0, 0, 0, 0

local function work(ctx, request)
  waiting = waiting + 1
  local done = loop.sleep(delay, ctx)
  waiting = waiting - 1
  if not done then
    abandoned = abandoned + 1
    return 503, tostring(ctx:cause())
  end
  answered = answered + 1
  return 200, ("%s of %s"):format(name, request.headers["x-request-id"] or "?")
end

server.run(port, function(ctx, request)
  local seconds = tonumber(request.path:match("^/delay/([%d.]+)$"))
  if seconds then
    delay = seconds
    return 200, "ok\n"
  elseif request.path == "/report" then
    return 200, ("waiting %d, answered %d, abandoned %d\n"):format(waiting, answered, abandoned)
  end
  return work(ctx, request)
end)
