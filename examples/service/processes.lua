-- Starts the service with everything around it, for the programs that exercise and load it.

local uv = require "luv"
local context = require "lcontext"

local processes = {}

local lua = arg[-1]

processes.folder = arg[0]:match("^.*/") or "./"

-- Starts a program; `on_output(chunk)` gets what it prints.
local function spawn(command, arguments, on_output)
  local stdout = uv.new_pipe()
  local process = { stdout = stdout }
  local exited, ended = context.with_cancel(context.background())
  process.exited = exited:done()
  process.handle = uv.spawn(command, { args = arguments, stdio = { nil, stdout, 2 } }, function(code)
    process.code = code
    process.handle:close()
    ended()
  end)
  assert(process.handle, "cannot start " .. command)
  stdout:read_start(function(_, chunk)
    if chunk then
      on_output(chunk)
    else
      stdout:close()
    end
  end)
  return process
end

-- Starts a server and waits for the line by which it says that it listens.
local function start_server(command, arguments, pattern)
  local ready <close>, found = context.with_timeout(context.background(), 10)
  local output = ""
  local process
  process = spawn(command, arguments, function(chunk)
    output = output .. chunk
    process.port = process.port or output:match(pattern)
    if process.port then
      found()
    end
  end)
  ready:done():wait()
  assert(process.port, command .. " does not start: " .. output)
  return process
end

local function start_lua(file, ...)
  return start_server(lua, { processes.folder .. file, ... }, "listening on (%d+)")
end

local function free_port()
  local socket = uv.new_tcp()
  socket:bind("127.0.0.1", 0)
  local port = socket:getsockname().port
  socket:close()
  return tostring(port)
end

local function start_redis()
  local port = free_port()
  local redis = start_server("redis-server", { "--port", port, "--save", "" }, "Ready to accept connections")
  redis.port = port
  return redis
end

---Ends a process as an administrator would, and returns its exit code.
function processes.stop(process)
  if not process.code then
    process.handle:kill("sigterm")
    process.exited:wait()
  end
  return process.code
end

---Runs a program to its end.
---@return string output
---@return integer exit_code
function processes.run(command, ...)
  local output = {}
  local process = spawn(command, { ... }, function(chunk) output[#output + 1] = chunk end)
  process.exited:wait()
  return table.concat(output), process.code
end

local Stack = {}
Stack.__index = Stack

function Stack.__close(stack)
  for _, name in ipairs { "service", "prices", "search", "redis" } do
    processes.stop(stack[name])
  end
end

---Redis with a profile in it, the two downstream services, and the service with this deadline. To be held by a
---`<close>` variable.
---@param deadline string
function processes.start_stack(deadline)
  local stack = { redis = start_redis(), prices = start_lua("downstream.lua", "prices"),
    search = start_lua("downstream.lua", "search") }
  processes.run("redis-cli", "-p", stack.redis.port, "set", "profile", "alice")
  stack.service = start_lua("service.lua", stack.redis.port, stack.prices.port, stack.search.port, deadline)
  return setmetatable(stack, Stack)
end

---Asks one of its servers with curl.
---@param server string "service", "prices" or "search"
---@param ... string options of curl
---@return string answer
---@return integer exit_code
function Stack:curl(server, path, ...)
  return processes.run("curl", "--silent", ("http://127.0.0.1:%s%s"):format(self[server].port, path), ...)
end

return processes
