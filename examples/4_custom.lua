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

-- It has just the four methods, so what it is the parent of is made by a function of the module. What comes back
-- is an ordinary context, with all methods.
local ctx <close> = context.with_timeout(reporting(base), 60)
local child = ctx:with_value("role", "admin")
print("the child: " .. tostring(child))

-- "role" is found before the search gets to the wrapper; for "user" the wrapper is asked.
print("role of the child: " .. child:value("role"))
print("user of the child: " .. child:value("user"))

print("before the cancel, err() is " .. tostring(child:err()))
cancel("enough")
print("after it, err() is " .. child:err() .. ", and the cause " .. child:cause())
