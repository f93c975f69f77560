-- What host.c runs for each request.

return function(ctx, text)
  while text == "endless" do end
  return ("%s, for %s"):format(text, ctx:value("request id"))
end
