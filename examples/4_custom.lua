-- A context of your own making.
--
-- Anything with the four methods deadline, done, err and value is a context, and can be the parent of others.
-- This one wraps another context. It changes one method: it reports each value that it is asked for. The rest it
-- passes on, and since done() returns the Done of the wrapped context, children end together with that one.

local context = require "lcontext"

local Reporting = { __name = "Reporting" } -- the name that tostring() of a child shows
Reporting.__index = Reporting

local function reporting(ctx)
  return setmetatable({ ctx = ctx }, Reporting)
end

function Reporting:deadline()
  return self.ctx:deadline()
end

function Reporting:done()
  return self.ctx:done()
end

function Reporting:err()
  return self.ctx:err()
end

function Reporting:value(key)
  local value = self.ctx:value(key)
  print(("  asked for %s: %s"):format(key, value))
  return value
end

local base, cancel = context.background():with_value("user", "alice"):with_cancel()

-- From here on it is a context like any other. (Only the methods that derive are missing, as it has just the
-- four: the functions of the module do the same.)
local child <close> = context.with_timeout(reporting(base), 60):with_value("role", "admin")
print("the child: " .. tostring(child))

-- "role" is found below the wrapper, which is not asked; "user" is not.
print("role of the child: " .. child:value("role"))
print("user of the child: " .. child:value("user"))

print("err() before: " .. tostring(child:err()))
cancel("enough")
print("err() after:  " .. tostring(child:err()) .. ", because of " .. context.cause(child))
