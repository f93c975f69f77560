-- coverage.lua FOLDER: says which lines of csrc/ and lua/ were reached by what was compiled with --coverage into the
-- folder and has run, and by the Lua lines that lines.lua has written to FOLDER/lua. Of a line that several programs
-- have, the counts are added.

local folder = arg[1]

local function lines_of(command)
  local pipe <close> = assert(io.popen(command))
  return pipe:read "a":gmatch "[^\n]+"
end

-- file -> line -> whether it was reached, of all lines that have code
local files = {}

local function note(file, line, reached)
  files[file] = files[file] or {}
  files[file][line] = files[file][line] or reached
end

local function read_gcov(data)
  local file
  for text in lines_of(("gcov --stdout '%s' 2>/dev/null"):format(data)) do
    local count, line, rest = text:match "^%s*([^:]+):%s*(%d+):(.*)$"
    line = tonumber(line)
    if line == 0 then
      file = rest:match "^Source:(csrc/.*)$" or (rest:find "^Source:" and nil) or file
      if rest:find "^Source:" and not rest:find "^Source:csrc/" then
        file = nil
      end
    elseif file and line and count ~= "-" then
      note(file, line, not count:find "#" and not count:find "=")
    end
  end
end

local function read_lua(file)
  for text in lines_of(("luac5.4 -l -l -p %s 2>/dev/null"):format(file)) do
    local line = text:match "^%s+%d+%s+%[(%d+)%]"
    if line then
      note(file, tonumber(line), false)
    end
  end
  local reached = io.open(folder .. "/lua")
  for text in reached and reached:lines() or function() end do
    local name, line = text:match "^(.*):(%d+)$"
    if name == file and files[file] and files[file][tonumber(line)] ~= nil then
      note(file, tonumber(line), true)
    end
  end
end

-- "3-5 9" for {3, 4, 5, 9}
local function ranges(lines)
  local texts, first = {}, nil
  for i, line in ipairs(lines) do
    first = first or line
    if lines[i + 1] ~= line + 1 then
      texts[#texts + 1] = first == line and tostring(line) or first .. "-" .. line
      first = nil
    end
  end
  return table.concat(texts, " ")
end

local function report(file)
  local missed, total = {}, 0
  for line, reached in pairs(files[file]) do
    total = total + 1
    if not reached then
      missed[#missed + 1] = line
    end
  end
  table.sort(missed)
  print(("%-28s %5d of %5d  %5.1f %%  %s"):format(file, total - #missed, total, 100 * (total - #missed) / total,
    #missed > 0 and "not: " .. ranges(missed) or ""))
  return total - #missed, total
end

for data in lines_of(("find '%s' -name '*.gcda'"):format(folder)) do
  read_gcov(data)
end
for file in lines_of "ls lua/lcontext/*.lua" do
  if not file:find "types" then -- which is never run
    read_lua(file)
  end
end

local names, reached, total = {}, 0, 0
for name in pairs(files) do
  names[#names + 1] = name
end
table.sort(names)
for _, name in ipairs(names) do
  local r, t = report(name)
  reached, total = reached + r, total + t
end
print(("%-28s %5d of %5d  %5.1f %%"):format("all", reached, total, 100 * reached / math.max(total, 1)))
os.exit(total > 0)
