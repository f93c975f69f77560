-- As much of HTTP/1.1 as the service needs, on streams: both ends of a request with a body of known length.

local http = {}

local function read_head(stream, ctx)
  local head, err = stream:read_until(ctx, "\r\n\r\n")
  if not head then
    return nil, err
  end
  local headers = {}
  for name, value in head:gmatch("\n([^:\r\n]+):[ \t]*([^\r\n]*)") do
    headers[name:lower()] = value
  end
  return head:match("^[^\r\n]*"), headers
end

local function read_body(stream, ctx, headers)
  return stream:read_bytes(ctx, tonumber(headers["content-length"]) or 0)
end

---@return { method: string, path: string, headers: table<string, string>, body: string }? request
---@return any err
function http.read_request(stream, ctx)
  local line, headers = read_head(stream, ctx)
  if not line then
    return nil, headers
  end
  local method, path = line:match("^(%u+) (%S+) HTTP/1%.[01]$")
  if not method then
    return nil, "bad request"
  end
  local body, err = read_body(stream, ctx, headers)
  if not body then
    return nil, err
  end
  return { method = method, path = path, headers = headers, body = body }
end

function http.respond(stream, ctx, status, body)
  local answer = "HTTP/1.1 %d %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s"
  return stream:write(ctx, answer:format(status, status == 200 and "OK" or "Error", #body, body))
end

---Asks for a path.
---@param request_id string for the logs of who is asked
---@return string? body
---@return any err
function http.get(stream, ctx, path, request_id)
  local question = "GET %s HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: %s\r\n\r\n"
  local written, err = stream:write(ctx, question:format(path, request_id))
  if not written then
    return nil, err
  end
  local line, headers = read_head(stream, ctx)
  if not line then
    return nil, headers
  end
  local status = line:match("^HTTP/1%.[01] (%d+)")
  local body
  body, err = read_body(stream, ctx, headers)
  if body and status ~= "200" then
    return nil, "status " .. tostring(status)
  end
  return body, err
end

return http
