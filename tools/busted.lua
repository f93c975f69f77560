-- Runs busted under this interpreter, whatever the one is that its command names.
require "busted.runner" { standalone = false }
