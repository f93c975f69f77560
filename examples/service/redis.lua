-- As much of the protocol of Redis as the service needs: GET.

local redis = {}

---@return string? value
---@return any err
function redis.get(stream, ctx, key)
  local written, err = stream:write(ctx, ("*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n"):format(#key, key))
  if not written then
    return nil, err
  end
  local line
  line, err = stream:read_until(ctx, "\r\n")
  if not line then
    return nil, err
  end
  local length = tonumber(line:match("^%$(%d+)\r\n$"))
  if not length then
    return nil, line == "$-1\r\n" and "no such key" or line:sub(2, -3)
  end
  local value
  value, err = stream:read_bytes(ctx, length + 2)
  return value and value:sub(1, length), err
end

return redis
