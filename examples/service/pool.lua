-- Connections to one downstream service, kept for the next request. One that an answer is still due on is of no
-- use to anybody else: it is closed.

local stream = require "stream"

---@class service.Pool
local Pool = {}
Pool.__index = Pool

---@return service.Pool
local function new(host, port)
  return setmetatable({ host = host, port = port, idle = {}, closed = false }, Pool)
end

local function take(self, ctx)
  while #self.idle > 0 do
    local connection = table.remove(self.idle)
    if not connection.ended then
      return connection
    end
    connection:close()
  end
  return stream.connect(ctx, self.host, self.port)
end

---Calls `ask(connection, ctx, ...)`, which returns the answer, or nil and an error.
function Pool:ask(ctx, ask, ...)
  local connection, err = take(self, ctx)
  if not connection then
    return nil, err
  end
  local answer
  answer, err = ask(connection, ctx, ...)
  if answer and not self.closed then
    table.insert(self.idle, connection)
  else
    connection:close()
  end
  return answer, err
end

---Closes those that are kept, and keeps no more.
function Pool:close()
  self.closed = true
  for _, connection in ipairs(self.idle) do
    connection:close()
  end
  self.idle = {}
end

return { new = new }
