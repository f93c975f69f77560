-- An HTTP server. It has one root context; each connection has one below it, which ends when the client hangs up;
-- what a handler does for a request it does under that. SIGTERM cancels the root: everything that runs is told,
-- and the process ends when all of it has come to its end.

local uv = require "luv"
local context = require "lcontext"
local group = require "lcontext.group"
local luv = require "lcontext.luv"
local http = require "http"
local stream = require "stream"

local server = {}

local function log(...)
  io.stderr:write(table.concat({ ... }, " "), "\n")
end

-- The answer is sent also when the server is shutting down: values pass, the end does not.
local function respond(connection, ctx, ...)
  local sending <close> = ctx:without_cancel():with_timeout(1)
  return http.respond(connection, sending, ...)
end

local function serve_requests(ctx, connection, handler)
  repeat
    local request = http.read_request(connection, ctx)
    if not request then
      return
    end
    local ok, status, body = pcall(handler, ctx, request)
    if not ok then
      log("error in a handler:", tostring(status))
      status, body = 500, "the handler has failed\n"
    end
    local sent = not connection.ended and respond(connection, ctx, status, body)
  until not sent or request.headers.connection == "close" or ctx:err()
end

local function serve(root, tcp, handler)
  local ctx <close>, cancel = context.with_cancel(root)
  local connection <close> = stream.new(tcp)
  function connection.on_end()
    cancel("client hung up")
  end
  serve_requests(ctx, connection, handler)
end

local function listen(port, on_connection)
  local listener = assert(uv.new_tcp())
  assert(listener:bind("127.0.0.1", port))
  assert(listener:listen(1024, function(err)
    local tcp = uv.new_tcp()
    if not err and listener:accept(tcp) then
      on_connection(tcp)
    else
      tcp:close()
    end
  end))
  return listener
end

local function on_sigterm(f)
  local signal = assert(uv.new_signal())
  signal:start("sigterm", f)
  signal:unref()
end

---Serves until SIGTERM has come and the last request is answered.
---@param port integer 0: any that is free
---@param handler fun(ctx: lcontext.Context, request: table): integer, string gives status and body
---@param on_shutdown? fun()
function server.run(port, handler, on_shutdown)
  assert(luv.attach())
  local root, shut_down = context.with_cancel(context.background())
  local connections = group.new(root)
  local listener = listen(port, function(tcp)
    connections:go(serve, tcp, handler)
  end)
  on_sigterm(function()
    listener:close()
    shut_down("the server is shutting down")
    if on_shutdown then
      on_shutdown()
    end
  end)
  print("listening on " .. listener:getsockname().port)
  io.stdout:flush()
  uv.run() -- until nothing is open and nothing runs
  assert(connections:wait())
end

return server
