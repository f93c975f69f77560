-- For wrk: each connection pauses for up to two seconds before a request, as people do. So how many requests are
-- under way at a time depends on how long they take, not only on how many connections there are.

function delay() -- luacheck: ignore 111 (wrk calls it)
  return math.random(0, 2000)
end
