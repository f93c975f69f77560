-- Counts the descriptors that this process has open.

local uv = require "luv"

return function()
  local scan = assert(uv.fs_scandir("/proc/self/fd"))
  local count = 0
  while uv.fs_scandir_next(scan) do
    count = count + 1
  end
  return count
end
