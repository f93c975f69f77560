-- One deadline over ten reads, on real sockets.
--
-- A page has ten lines: one from each of two quick servers, eight from a slow one, which takes 0.2 s for each. The
-- page may take 0.3 s. A timeout for each read cannot say that: no single read is late, and the page takes what
-- they add up to, ten times the limit at worst. A context has one deadline for all of them. LuaSocket knows
-- nothing of contexts, and need not: one line is enough, in read_in_time or in read_until_done.

local context = require "lcontext"
local socket = require "socket"

local LIMIT = 0.3

local function serve(delay)
  local server = assert(socket.bind("127.0.0.1", 0))
  server:settimeout(10) -- it does not stay, should nobody come
  print((select(2, server:getsockname())))
  io.stdout:flush()
  for _ = 1, 3 do -- three pages are read below
    local client = assert(server:accept())
    while client:receive() do
      socket.select({ client }, nil, delay) -- a pause, cut short when the client hangs up
      client:send("a line\n")
    end
    client:close()
  end
end

if arg[1] then
  return serve(tonumber(arg[1]))
end

-- Each server is a process of its own: this file, run with the delay as its argument. It prints its port first.
local function start_server(delay)
  local pipe <close> = assert(io.popen(('"%s" "%s" %s &'):format(arg[-1], arg[0], delay)))
  return pipe:read("n") or error("the server did not start")
end

local function read_naively(sock)
  sock:settimeout(LIMIT)
  return sock:receive()
end

-- It gives up with LuaSocket's own error. (And up to 1 ms early: LuaSocket waits for whole milliseconds.)
local function read_in_time(sock, ctx)
  sock:settimeout(ctx:remaining()) -- what is left of the time for the page
  return sock:receive()
end

-- It waits for the line or for the end of the context: a cancel would wake it too. (A line comes in one piece here.)
local function read_until_done(sock, ctx)
  socket.select({ ctx:done(), sock }, nil)
  if ctx:err() then
    return nil, ctx:err()
  end
  return sock:receive()
end

local function read_page(title, ports, read)
  local ctx <close> = context.with_timeout(context.background(), LIMIT)
  local start, socks, lines = context.now(), {}, 0
  for i, port in ipairs(ports) do
    socks[i] = assert(socket.connect("127.0.0.1", port))
  end
  local line, err
  repeat
    local sock = socks[lines + 1] or socks[#socks]
    sock:send("next\n")
    line, err = read(sock, ctx)
    lines = lines + (line and 1 or 0)
  until err or lines == 10
  print(("%-28s %2d lines, %.2f s, %s"):format(title, lines, context.now() - start, err or "complete"))
  for _, sock in ipairs(socks) do
    sock:close()
  end
end

local ports = { start_server(0.01), start_server(0.01), start_server(0.2) }
read_page("0.3 s for each read:", ports, read_naively)
read_page("0.3 s, by remaining():", ports, read_in_time)
read_page("0.3 s, by select on a Done:", ports, read_until_done)
