-- The same work in Go, in the C core and through the Lua binding, side by side: runs the three programs in turns and
-- shows one table of the medians.
--
--   lua5.4 bench/run.lua [--rounds N] [--only PATTERN] [--tsv FILE] FOLDER
--
-- FOLDER has the programs `core` and, if there is a Go, `go`; LUA_PATH and LUA_CPATH are as in the Makefile.
-- A PATTERN is Lua's, for names of rows. Every run is a process of its own, so that none finds the heap that another
-- has left; the three take turns at each run, so that a machine that slows down slows all of them.

local here = arg[0]:match("^(.*)/") or "."
local rows = dofile(here .. "/rows.lua")

-- ---- The command line

local USAGE <const> = "usage: run.lua [--rounds N] [--only PATTERN] [--tsv FILE] FOLDER"

local function read_options(args)
  local options, i = { rounds = 5, only = "" }, 1
  while args[i] do
    local name = args[i]:match("^%-%-(.*)")
    if name and args[i + 1] then
      options[name], i = args[i + 1], i + 1
    elseif not name then
      options.folder = args[i]
    end
    i = i + 1
  end
  options.rounds = math.tointeger(tonumber(options.rounds))
  if not options.folder or not options.rounds or options.rounds < 1 then
    io.stderr:write(USAGE, "\n")
    os.exit(2)
  end
  return options
end

-- ---- The programs

local function quoted(word)
  return "'" .. word:gsub("'", "'\\''") .. "'"
end

local function lines_of(command)
  local lines = {}
  local pipe <close> = assert(io.popen(command))
  for line in pipe:lines() do
    lines[#lines + 1] = line
  end
  local ok, how, code = pipe:close()
  if not ok then
    error(("%s: %s %d"):format(command, how, code), 0)
  end
  return lines
end

local function exists(path)
  local file = io.open(path)
  return file and file:close()
end

local function known_runs()
  local known = {}
  for _, row in ipairs(rows) do
    known[row.run] = true
  end
  return known
end

-- A program: the column, the command, and the set of the runs that it has.
local function new_program(column, command)
  local program = { column = column, command = command, has = {} }
  local known = known_runs()
  for _, run in ipairs(lines_of(command .. " list")) do
    if not known[run] then
      error(("%s has the run %s, and rows.lua does not"):format(column, run), 0)
    end
    program.has[run] = true
  end
  return program
end

local function find_programs(folder)
  local programs = {}
  if exists(folder .. "/go") then
    programs[#programs + 1] = new_program("go", quoted(folder .. "/go"))
  end
  programs[#programs + 1] = new_program("core", quoted(folder .. "/core"))
  programs[#programs + 1] = new_program("lua", ("%s %s"):format(quoted(arg[-1]), quoted(here .. "/binding.lua")))
  return programs
end

-- ---- Measuring

-- figures[row name][column] is a list, one figure a round.
local function measure(program, run, figures)
  for _, line in ipairs(lines_of(("%s %s"):format(program.command, quoted(run)))) do
    local name, figure = line:match("^(%S+)\t(%S+)$")
    local of_row = figures[name]
    if not of_row then
      error(("%s: a line that is no row: %s"):format(program.column, line), 0)
    end
    of_row[program.column] = of_row[program.column] or {}
    table.insert(of_row[program.column], tonumber(figure))
  end
end

-- The runs in order, each once: { name, slow }.
local function wanted_runs(only)
  local runs, seen = {}, {}
  for _, row in ipairs(rows) do
    if row.name:find(only) and not seen[row.run] then
      seen[row.run] = true
      runs[#runs + 1] = { name = row.run, slow = row.slow }
    end
  end
  return runs
end

-- Each round begins with another program, so that none is always the one after another.
local function measure_run(programs, run, round, figures)
  for turn = 1, #programs do
    local program = programs[(turn + round) % #programs + 1]
    if program.has[run] then
      measure(program, run, figures)
    end
  end
end

-- Where the run is, for somebody who watches.
local watched = os.execute("test -t 2")

local function progress(text)
  if watched then
    io.stderr:write("\r\27[K", text)
  end
end

local function measure_all(programs, options)
  local figures, runs = {}, wanted_runs(options.only)
  for _, row in ipairs(rows) do
    figures[row.name] = {}
  end
  local slow_rounds = (options.rounds + 1) // 2
  for round = 1, options.rounds do
    for _, run in ipairs(runs) do
      if not run.slow or round <= slow_rounds then
        progress(("round %d of %d: %s"):format(round, options.rounds, run.name))
        measure_run(programs, run.name, round, figures)
      end
    end
  end
  progress("")
  return figures
end

local function median(list)
  if not list then
    return nil
  end
  list = table.move(list, 1, #list, 1, {})
  table.sort(list)
  local n = #list
  return n % 2 == 1 and list[n // 2 + 1] or (list[n // 2] + list[n // 2 + 1]) / 2
end

-- Of the ratios of each round, in which the two ran one after the other: a machine that is slower for a while hits
-- both.
local function median_ratio(a, b)
  local ratios = {}
  for round = 1, a and b and #a or 0 do
    ratios[round] = a[round] / b[round]
  end
  return #ratios > 0 and median(ratios) or nil
end

-- What is known of each wanted row: { row, go, core, lua, core_go, lua_go }.
local function results_of(figures, only)
  local results = {}
  for _, row in ipairs(rows) do
    local of_row = figures[row.name]
    local result = {
      row = row,
      core_go = median_ratio(of_row.core, of_row.go), lua_go = median_ratio(of_row.lua, of_row.go),
      go = median(of_row.go), core = median(of_row.core), lua = median(of_row.lua),
    }
    if row.name:find(only) and next(of_row) then
      results[#results + 1] = result
    end
  end
  return results
end

-- ---- Showing

local function significant(x)
  return x < 10 and "%.2f" or x < 100 and "%.1f" or "%.0f"
end

local function figure_text(x, unit)
  if not x then
    return "-"
  elseif unit == "ns" then
    for _, step in ipairs { { 1e9, "s" }, { 1e6, "ms" }, { 1e3, "us" } } do
      if x >= step[1] then
        x, unit = x / step[1], step[2]
        break
      end
    end
  end
  return (significant(x) .. " " .. unit):format(x)
end

-- A ratio above its target has a mark.
local function ratio_text(x, target)
  if not x then
    return "-  "
  end
  return (x < 0.01 and "%.1g" or significant(x)):format(x) .. (x > target and " !" or "  ")
end

local FORMAT <const> = "%-52s %10s %10s %9s  %10s %9s"

-- The notes of rows come below the table, each once, with a number.
local function numbered(notes, note)
  if not note then
    return ""
  elseif not notes[note] then
    notes[#notes + 1] = note
    notes[note] = #notes
  end
  return (" [%d]"):format(notes[note])
end

local function show(results)
  local notes, section, target = {}, nil, rows.target
  print(FORMAT:format("", "Go", "core", "core/Go  ", "Lua", "Lua/Go  "))
  for _, result in ipairs(results) do
    local row = result.row
    if row.section ~= section then
      section = row.section
      print("\n" .. section)
    end
    local core_target = row.unit == "B" and target.core_bytes or target.core
    print(FORMAT:format("  " .. row.title .. numbered(notes, row.note), figure_text(result.go, row.unit),
      figure_text(result.core, row.unit), ratio_text(result.core_go, core_target),
      figure_text(result.lua, row.unit), ratio_text(result.lua_go, target.lua)))
  end
  print(("\n! above its target: core/Go %.2f (memory: %.2f), Lua/Go %.2f")
    :format(target.core, target.core_bytes, target.lua))
  for number, note in ipairs(notes) do
    print(("[%d] %s"):format(number, note))
  end
end

local function first_match(command, pattern)
  for _, line in ipairs(lines_of(command .. " 2>/dev/null || true")) do
    local found = line:match(pattern)
    if found then
      return found
    end
  end
end

-- The machine and the versions, in a line.
local function environment(rounds, go)
  local parts = {
    go and "Go " .. (first_match(go.command .. " version", "go(%S+)") or "of unknown version") or "no Go",
    _VERSION,
    first_match("cat /proc/cpuinfo", "^model name%s*:%s*(.-)%s*$") or "unknown processor",
    (first_match("getconf _NPROCESSORS_ONLN", "%d+") or "?") .. " processors",
    ("medians (of ratios, too) of %d rounds, %d where a run takes seconds"):format(rounds, (rounds + 1) // 2),
  }
  return table.concat(parts, "; ")
end

-- ---- As a file

local COLUMNS <const> = { "section", "name", "title", "unit", "go", "core", "lua", "core_go", "lua_go" }

local function tsv_line(result)
  local cells = {}
  for i, column in ipairs(COLUMNS) do
    local x = result.row[column] or result[column] or ""
    cells[i] = type(x) == "number" and ("%.6g"):format(x) or x
  end
  return table.concat(cells, "\t")
end

local function write_tsv(path, results, about)
  local file <close> = assert(io.open(path, "w"))
  file:write("# ", about, "\n", table.concat(COLUMNS, "\t"), "\n")
  for _, result in ipairs(results) do
    file:write(tsv_line(result), "\n")
  end
end

-- ---- All of it

local options = read_options(arg)
local programs = find_programs(options.folder)
local go = programs[1].column == "go" and programs[1]
local results = results_of(measure_all(programs, options), options.only)
local about = environment(options.rounds, go)
print(about)
if not go then
  print("There is no Go here: its column stays empty.")
end
print()
show(results)
if options.tsv then
  write_tsv(options.tsv, results, about)
end
