-- Every example in the README and in doc/ is run here, as it stands. Some of them count on time: those that fail run
-- again.

local busy = require "spec.support.busy"

local function lua_blocks(path)
  local file <close> = assert(io.open(path))
  local blocks, block, start = {}, nil, nil
  local number = 0
  for line in file:lines() do
    number = number + 1
    if line == "```lua" then
      block, start = {}, number
    elseif line == "```" and block then
      blocks[#blocks + 1] = { line = start, source = ("\n"):rep(start) .. table.concat(block, "\n") }
      block = nil
    elseif block then
      block[#block + 1] = line
    end
  end
  return blocks
end

describe("the examples of", function()
  for _, path in ipairs { "README.md", "doc/manual.md", "doc/stopping.md", "doc/design.md", "doc/security.md" } do
    for _, block in ipairs(lua_blocks(path)) do
      it(path .. ", line " .. block.line, function()
        local example = assert(load(block.source, "@" .. path))
        busy.again(function()
          local ok, err = pcall(example)
          if not ok then
            for _, name in ipairs { "lcontext.luv", "lcontext.cqueues" } do
              if package.loaded[name] then
                pcall(package.loaded[name].detach)
              end
            end
            error(err, 0)
          end
        end)
      end)
    end
  end
end)
