-- Draws what run.lua has measured: for each row how long the core and the Lua binding take, as a multiple of Go.
--
--   lua5.4 bench/picture.lua FILE.tsv FILE.svg
--
-- The axis is logarithmic and the bars begin at Go's 1: to the left is faster, or smaller.

local WIDTH <const>, LABELS <const>, MARGIN <const> = 1000, 400, 24
local ROW <const>, BAR <const>, SECTION <const>, TOP <const>, BOTTOM <const> = 22, 8, 34, 112, 44
local TARGET <const> = 1 / 3
local COLOURS <const> = { core_go = "#1f5fa8", lua_go = "#e08a1e" }
local INK <const>, PALE <const>, GRID <const> = "#222222", "#666666", "#e2e2e2"

-- ---- Reading

local function split(line)
  local cells = {}
  for cell in (line .. "\t"):gmatch("([^\t]*)\t") do
    cells[#cells + 1] = cell
  end
  return cells
end

-- The rows that have a ratio, and the line about where they come from.
local function read_tsv(path)
  local about, columns, rows = "", nil, {}
  for line in io.lines(path) do
    if line:find("^#") then
      about = line:sub(3)
    elseif not columns then
      columns = split(line)
    else
      local row = {}
      for i, cell in ipairs(split(line)) do
        row[columns[i]] = cell
      end
      row.core_go, row.lua_go = tonumber(row.core_go), tonumber(row.lua_go)
      if row.core_go or row.lua_go then
        rows[#rows + 1] = row
      end
    end
  end
  return rows, about
end

-- ---- The axis

-- The powers of ten that hold all ratios, 0.1 to 10 at least.
local function decades(rows)
  local low, high = -1, 1
  for _, row in ipairs(rows) do
    for name in pairs(COLOURS) do
      if row[name] then
        local log = math.log(row[name], 10)
        low, high = math.min(low, math.floor(log)), math.max(high, math.ceil(log))
      end
    end
  end
  return low, high
end

local function new_scale(low, high)
  local left, width = LABELS + MARGIN, WIDTH - LABELS - 2 * MARGIN
  return function(ratio)
    return left + (math.log(ratio, 10) - low) / (high - low) * width
  end
end

-- ---- Drawing

local function escaped(text)
  return (text:gsub("[&<>]", { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;" }))
end

local function new_canvas()
  local canvas = {}
  function canvas.add(format, ...)
    canvas[#canvas + 1] = format:format(...)
  end
  function canvas.text(x, y, size, colour, anchor, text, more)
    canvas.add('<text x="%.1f" y="%.1f" font-size="%d" fill="%s" text-anchor="%s"%s>%s</text>',
      x, y, size, colour, anchor, more or "", escaped(text))
  end
  function canvas.line(x, y1, y2, colour, more)
    canvas.add('<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s"%s/>', x, y1, x, y2, colour, more or "")
  end
  return canvas
end

local BOLD <const> = ' font-weight="600"'

local function draw_legend(canvas, about)
  canvas.text(MARGIN, 34, 19, INK, "start", "Time and memory, as a multiple of Go's", BOLD)
  canvas.text(MARGIN, 56, 12, PALE, "start", about)
  local x = LABELS + MARGIN
  for _, entry in ipairs { { "core_go", "C core / Go" }, { "lua_go", "Lua / Go" } } do
    canvas.add('<rect x="%d" y="70" width="22" height="%d" fill="%s"/>', x, BAR, COLOURS[entry[1]])
    canvas.text(x + 28, 78, 12, INK, "start", entry[2])
    x = x + 130
  end
  canvas.text(WIDTH - MARGIN, 78, 12, PALE, "end", "to the left is better")
end

local function power_text(power)
  return power < 0 and ("0.%s1"):format(("0"):rep(-power - 1)) or "1" .. ("0"):rep(power)
end

local function draw_axis(canvas, scale, low, high, bottom)
  for power = low, high do
    local x = scale(10.0 ^ power)
    canvas.line(x, TOP - 6, bottom, power == 0 and INK or GRID)
    canvas.text(x, TOP - 12, 12, PALE, "middle", power_text(power))
    canvas.text(x, bottom + 18, 12, PALE, "middle", power_text(power))
  end
  canvas.line(scale(TARGET), TOP - 6, bottom, PALE, ' stroke-dasharray="4 3"')
  canvas.text(scale(TARGET), TOP - 12, 12, PALE, "middle", "1/3")
end

local function draw_bar(canvas, scale, y, name, ratio)
  if not ratio then
    return
  end
  local one, x = scale(1), scale(ratio)
  canvas.add('<rect x="%.1f" y="%.1f" width="%.1f" height="%d" fill="%s"><title>%.3g</title></rect>',
    math.min(one, x), y, math.max(1, math.abs(x - one)), BAR, COLOURS[name], ratio)
end

local function draw_row(canvas, scale, y, row)
  canvas.text(LABELS, y + ROW / 2 + 2, 12, INK, "end", row.title)
  draw_bar(canvas, scale, y + 1, "core_go", row.core_go)
  draw_bar(canvas, scale, y + 1 + BAR, "lua_go", row.lua_go)
end

-- Where the rows and the titles of their sections go; returns the lower end.
local function place(rows)
  local y, section = TOP, nil
  for _, row in ipairs(rows) do
    if row.section ~= section then
      section, row.title_y = row.section, y + SECTION - 12
      y = y + SECTION
    end
    row.y = y
    y = y + ROW
  end
  return y
end

local function draw(rows, about)
  local low, high = decades(rows)
  local scale, bottom, canvas = new_scale(low, high), place(rows), new_canvas()
  canvas.add('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" ' ..
    'font-family="system-ui, sans-serif">', WIDTH, bottom + BOTTOM, WIDTH, bottom + BOTTOM)
  canvas.add('<rect width="100%%" height="100%%" fill="#fcfcfb"/>')
  draw_legend(canvas, about)
  draw_axis(canvas, scale, low, high, bottom)
  for _, row in ipairs(rows) do
    if row.title_y then
      canvas.text(MARGIN, row.title_y, 14, INK, "start", row.section, BOLD)
    end
    draw_row(canvas, scale, row.y, row)
  end
  canvas.add("</svg>\n")
  return table.concat(canvas, "\n")
end

-- ---- All of it

if #arg ~= 2 then
  io.stderr:write("usage: picture.lua FILE.tsv FILE.svg\n")
  os.exit(2)
end
local rows, about = read_tsv(arg[1])
if #rows == 0 then
  io.stderr:write("nothing to draw: no row has been compared with Go\n")
  os.exit(1)
end
local file <close> = assert(io.open(arg[2], "w"))
file:write(draw(rows, about))
