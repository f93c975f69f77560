-- lcontext: Go's context for Lua. What is here is documented in types.lua and in doc/.

---@type lcontext
return require("lcontext.core").context
