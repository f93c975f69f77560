-- A TCP stream of luv, used by coroutines under a context. luv calls back when something has happened; the
-- callback ends a context below the one that is waited under. So one wait is for both: whatever comes first.

local uv = require "luv"
local context = require "lcontext"

---@class service.Stream
local Stream = {}
Stream.__index = Stream

-- Returns a context below ctx, and the function for luv to call.
local function event(ctx)
  return context.with_cancel(ctx)
end

---@return service.Stream
local function new(tcp)
  local self = setmetatable({ tcp = tcp, buffer = "" }, Stream)
  tcp:read_start(function(err, chunk)
    if chunk then
      self.buffer = self.buffer .. chunk
    else
      self.ended = err or "connection closed"
      if self.on_end then
        self.on_end()
      end
    end
    if self.arrived then
      self.arrived()
    end
  end)
  return self
end

---@return service.Stream? stream
---@return any err
local function connect(ctx, host, port)
  local tcp, failure = uv.new_tcp(), nil
  local connected <close>, call = event(ctx)
  local started, err = tcp:connect(host, port, function(e)
    failure = e
    call()
  end)
  if started then
    connected:done():wait()
    err = ctx:err() or failure
  end
  if err then
    tcp:close()
    return nil, err
  end
  return new(tcp)
end

-- Waits until `find(buffer)` gives the length of what is wanted, and takes that out of the buffer.
function Stream:take(ctx, find)
  while true do
    local length = find(self.buffer)
    if length then
      local taken = self.buffer:sub(1, length)
      self.buffer = self.buffer:sub(length + 1)
      return taken
    end
    if ctx:err() or self.ended then
      return nil, ctx:err() or self.ended
    end
    local arrived <close>, call = event(ctx)
    self.arrived = call
    arrived:done():wait()
  end
end

---Everything up to and with `delimiter`.
function Stream:read_until(ctx, delimiter)
  return self:take(ctx, function(buffer)
    local _, last = buffer:find(delimiter, 1, true)
    return last
  end)
end

function Stream:read_bytes(ctx, count)
  return self:take(ctx, function(buffer)
    return #buffer >= count and count or nil
  end)
end

function Stream:write(ctx, data)
  local failure
  local written <close>, call = event(ctx)
  local started, err = self.tcp:write(data, function(e)
    failure = e
    call()
  end)
  if not started then
    return nil, err
  end
  written:done():wait()
  if ctx:err() or failure then
    return nil, ctx:err() or failure
  end
  return true
end

---`local stream <close> = …` works, too.
function Stream:close()
  if not self.tcp:is_closing() then
    self.tcp:close()
  end
end

Stream.__close = Stream.close

return { new = new, connect = connect }
