-- The tour: runs the eight examples in order, each in a process of its own. From any folder:
--
--   lua5.4 examples/tour.lua
--
-- The heading of each is the first line of its file. The exit status is 1 if one of them fails.

local examples = {
  "1_handler.lua",
  "2_children.lua",
  "3_values.lua",
  "4_custom.lua",
  "5_many_values.lua",
  "6_abandoned.lua",
  "7_deadline.lua",
  "8_sandbox.lua",
}

local folder = arg[0]:match("^.*/") or "./"

-- The interpreter is the first word of the command line, however many options stand between it and this file.
local first = -1
while arg[first - 1] do
  first = first - 1
end

local function quote(word)
  return "'" .. word:gsub("'", "'\\''") .. "'"
end

local function heading(path)
  local file <close> = assert(io.open(path))
  return file:read("l"):match("^%-%-%s*(.*)")
end

local failed = 0
for i, name in ipairs(examples) do
  print(("%s== %s (%s)\n"):format(i > 1 and "\n" or "", heading(folder .. name), name))
  io.stdout:flush() -- before the other process writes
  if not os.execute(quote(arg[first]) .. " " .. quote(folder .. name)) then
    print("\n" .. name .. " failed")
    failed = failed + 1
  end
end
os.exit(failed == 0, true)
