-- The rows of the benchmark, in the order in which they are shown: the one place that knows them all. The three
-- programs (bench/go, core.c, binding.lua) know how to measure the rows that make sense for them; the names here tie
-- them together.
--
-- A row: its name, its title, and
--   unit   what its figures are: "ns" unless told, or "B"
--   slow   takes seconds: fewer rounds
--   note   what somebody who compares the columns has to know
-- Rows whose names differ only behind a colon come out of one run.

local rows = {
  -- What core÷Go and Lua÷Go should not exceed; core_bytes: of memory.
  target = { core = 1 / 3, core_bytes = 1 / 2, lua = 1 },
}

local section

local function begin(title)
  section = title
end

local function row(name, title, extra)
  local new = { name = name, title = title, unit = "ns", section = section }
  for key, value in pairs(extra or {}) do
    new[key] = value
  end
  new.run = name:match("^[^:]+")
  rows[#rows + 1] = new
end

local SLOW <const> = { slow = true }

begin "Making and ending one context"
row("floor", "the floor: allocate, lock, link, unlink, free")
row("with_cancel.background", "with_cancel + cancel, under background")
row("with_cancel.parent", "with_cancel + cancel, under a live parent")
row("with_cancel.siblings", "with_cancel + cancel, 100,000 live siblings", SLOW)
row("with_timeout.background", "with_timeout + cancel, under background")
row("with_timeout.parent", "with_timeout + cancel, under a live parent")
row("with_timeout.siblings", "with_timeout + cancel, 100,000 live siblings", SLOW)
row("after_func", "after_func + stop", { note = "Go has it since 1.21" })
local each = "the time that one turn takes in each thread"
row("threads.1", "with_cancel + cancel in 1 thread, one parent", { note = each })
row("threads.2", "with_cancel + cancel in 2 threads, one parent", { note = each })

begin "Values"
row("with_value", "with_value")
row("with_values.8", "with_values of 8", { note = "Go: WithValue, eight times" })
for _, depth in ipairs { 1, 10, 100, 1000 } do
  row("value.hit." .. depth, ("value at depth %d, there"):format(depth))
end
for _, depth in ipairs { 1, 10, 100, 1000 } do
  row("value.miss." .. depth, ("value at depth %d, not there"):format(depth))
end

begin "Asking"
row("floor.call", "the floor: a call", { note = "C: of a function that reads a word; Lua: rawlen(\"\")" })
row("err.live", "err, live")
row("err.ended", "err, ended")
row("err.live.layers", "err, live, under 100 value layers")
row("err.ended.layers", "err, ended, under 100 value layers")
local poll = "Go: a select on Done() with a default. C has no Done: lctx_err. Lua: ctx:done():closed()"
row("done.live", "done, live", { note = poll })
row("done.ended", "done, ended", { note = poll })
row("done.live.layers", "done, live, under 100 value layers", { note = poll })
row("done.ended.layers", "done, ended, under 100 value layers", { note = poll })
row("wait.0", "wait for 0 seconds, live",
  { note = "Go: a select on Done() with a default; C: lctx_wait(ctx, 0); Lua: done:wait(0)" })

begin "Ending a tree"
local no_free = "what is freed is not in the figure: in Go and Lua the collector's work, and much later"
row("cancel.children.1", "cancel, per child of 1", { note = no_free })
row("cancel.children.1000", "cancel, per child of 1,000", { note = no_free })
row("cancel.children.100000", "cancel, per child of 100,000", { note = no_free })
row("cancel.children.1000000", "cancel, per child of 1,000,000", { slow = true, note = no_free })
row("cancel.chain.10000", "cancel, per node of a chain of 10,000", { note = no_free })
row("cancel.chain.1000000", "cancel, per node of a chain of 1,000,000", { slow = true, note = no_free })
row("err.blocked", "longest err() while 1,000,000 children end",
  { slow = true, note = "a second thread asks the parent all the while; the longest of its calls" })
row("wakeup", "cancel to wake-up in another thread, median",
  { note = "C: lctx_wait in a thread; Go: a goroutine on Done, which needs no kernel to be woken" })

begin "Timers"
for _, count in ipairs { { 100, "100" }, { 1000000, "1,000,000" } } do
  local run, slow = ("timers.%d"):format(count[1]), count[1] > 1000
  row(run .. ":create", ("with_timeout, per timer of %s"):format(count[2]), { slow = slow })
  row(run .. ":cancel", ("cancel it, per timer of %s"):format(count[2]), { slow = slow })
  row(run .. ":expire", ("expire at one moment, per timer of %s"):format(count[2]),
    { slow = slow, note = "from their common deadline until all have ended" })
end
local late = "C and Lua: seen in an after_func callback; Go: in a goroutine that waits on Done"
row("late:p50", "10,000 deadlines within a second, late, p50", { slow = true, note = late })
row("late:p99", "10,000 deadlines within a second, late, p99", { slow = true, note = late })

begin "Memory for each context"
local bytes = "Go: HeapAlloc, C: mallinfo2, Lua: resident, of 200,000; cancel functions are part of it"
row("bytes.with_cancel", "with_cancel, under a live parent", { unit = "B", note = bytes })
row("bytes.with_timeout", "with_timeout, under a live parent", { unit = "B", note = bytes })
row("bytes.with_value", "with_value, under background", { unit = "B", note = bytes })

-- Those of Go's context package, by the names that they have there; they are described there, too.
begin "Go's own benchmarks"
local serial = "Go and C run it in all processors at once; in Lua it is one thread"
row("CommonParentCancel", "CommonParentCancel", { note = serial })
row("WithTimeout/concurrency=40", "WithTimeout/concurrency=40", { note = serial })
row("WithTimeout/concurrency=4000", "WithTimeout/concurrency=4000", { note = serial })
row("WithTimeout/concurrency=400000", "WithTimeout/concurrency=400000", { slow = true, note = serial })
for _, depth in ipairs { 1, 10, 100, 1000 } do
  for _, root in ipairs { "Background", "OpenCanceler", "ClosedCanceler" } do
    local name = ("CancelTree/depth=%d/Root=%s"):format(depth, root)
    row(name, name)
  end
end
row("CheckCanceled/Err", "CheckCanceled/Err")
row("CheckCanceled/Done", "CheckCanceled/Done", { note = poll })
row("ContextCancelDone", "ContextCancelDone", { note = serial })
for _, depth in ipairs { 10, 20, 30, 50, 100 } do
  local name = ("DeepValueNewGoRoutine/depth=%d"):format(depth)
  row(name, name, { note = "Lua: in a new coroutine; C: nothing like it" })
end
for _, depth in ipairs { 10, 20, 30, 50, 100 } do
  local name = ("DeepValueSameGoRoutine/depth=%d"):format(depth)
  row(name, name)
end
row("ErrOK", "ErrOK")
row("ErrCanceled", "ErrCanceled")

return rows
