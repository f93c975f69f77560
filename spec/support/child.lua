-- Runs a script in a Lua process of its own, for what would end or block this one.

local child = {}

local function quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

---Returns what the script has printed (stderr too) and its exit status; more than 128: killed by a signal.
---After two minutes, which only a script that hangs takes, it is killed, and the status is 124.
---@param script string
function child.run(script)
  local name = os.tmpname()
  local file = assert(io.open(name, "w"))
  file:write(script)
  file:close()
  -- The subshell's last word is the status, also that of a process that a signal has killed.
  local command = ("( LUA_PATH=%s LUA_CPATH=%s timeout 120 %s %s ) 2>&1; echo \"status $?\""):format(
    quote(package.path), quote(package.cpath),
    os.getenv("LUA") or "lua5.4", quote(name))
  local pipe = assert(io.popen(command))
  local output = pipe:read("a")
  pipe:close()
  os.remove(name)
  local text, status = output:match("^(.-)status (%d+)%s*$")
  return text, tonumber(status)
end

return child
