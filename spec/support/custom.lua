-- Custom contexts: objects of this process that only have the methods of a context.

local custom = {}

---A context of its own kind: it ends when `done` (nil: never) closes.
---@param done? lcontext.Done
---@param fields? table
function custom.new(done, fields)
  local object = {
    deadline = function() end,
    done = function() return done end,
    err = function() end,
    value = function() end,
  }
  for name, field in pairs(fields or {}) do
    object[name] = field
  end
  return object
end

---Passes everything on to ctx, except for the methods in `overrides`.
function custom.wrap(ctx, overrides)
  local object = overrides or {}
  for _, name in ipairs { "deadline", "done", "err", "value" } do
    if object[name] == nil then
      object[name] = function(_, ...) return ctx[name](ctx, ...) end
    end
  end
  return object
end

return custom
