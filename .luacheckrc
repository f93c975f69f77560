std = "lua54"
max_line_length = 120
exclude_files = { "build" }
files["spec"] = { std = "lua54+busted" }
files["lua/lcontext/types.lua"] = { ignore = { "211", "212", "241" } } -- stubs
