---@meta lcontext
-- Types of the public module for the Lua language server. Nothing here is run: the functions are in C. A spec
-- holds this file and the module to the same names.

---The errors that contexts end with; there are two, compared with `==`.
---@class lcontext.Error: userdata
---@operator concat(any): string
local Error = {}

---True for DeadlineExceeded.
---@return boolean
function Error:timeout() end

---True for DeadlineExceeded.
---@return boolean
function Error:temporary() end

---A key for `with_value`, equal to no other.
---@class lcontext.Key: userdata

---Keeps a callback from running: call it, or let a `<close>` variable hold it.
---@class lcontext.Stop: userdata
---@overload fun(): boolean true if it kept the callback from running

---What waiters wait on; closed when its context has ended.
---@class lcontext.Done: userdata
local Done = {}

---Waits until the context has ended. A coroutine yields, the main one blocks.
---@param seconds? number nil: for ever
---@return boolean closed false: the time is up
function Done:wait(seconds) end

---@return boolean
function Done:closed() end

---The descriptor that is readable when closed (protocol of cqueues).
---@return integer? fd
---@return string? err no descriptor is to be had
function Done:pollfd() end

---@return string
function Done:events() end

---Seconds until the deadline of the context, for loops that wait by themselves.
---@return number?
function Done:timeout() end

---As pollfd (protocol of LuaSocket).
---@return integer? fd
---@return string? err
function Done:getfd() end

---As closed (protocol of LuaSocket).
---@return boolean
function Done:dirty() end

---@alias lcontext.Cancel fun(cause?: any) ends the context and everything below it with Canceled

---A context. Any table or userdata with the methods deadline, done, err and value can be a parent, too.
---@class lcontext.Context: userdata
local Context = {}

---Unix seconds; nil without a deadline. Never later than an ancestor's; stays after the end.
---@return number?
function Context:deadline() end

---Seconds until the deadline, 0 when it is past; nil without one.
---@return number?
function Context:remaining() end

---@return lcontext.Done? done nil if the context can never end
function Context:done() end

---@return lcontext.Error? err nil while live, then Canceled or DeadlineExceeded
function Context:err() end

---Why it ended: the cause that was given, else the same as err().
---@return any
function Context:cause() end

---The value that the nearest layer holds under the key; nil if none does.
---@param key any
---@return any
function Context:value(key) end

---Runs f(...) as pcall does, stopped when this context ends.
---@param f function
---@param ... any arguments for f
---@return boolean ok false: f has failed, or was stopped
---@return any ... f's results; or its error; or the context's err and the traceback of where f was stuck
function Context:pcall(f, ...) end

---Runs f(...), stopped when this context ends; raises the context's err then.
---@param f function
---@param ... any arguments for f
---@return any ... f's results
function Context:call(f, ...) end

---@class lcontext.Interrupt
---@field mode? "signal"|"count"
---@field signal? integer the number of the signal
---@field count? integer how many instructions from look to look in count mode
---@field grace? number seconds that a script has to clean up

---@class lcontext
---@field Canceled lcontext.Error
---@field DeadlineExceeded lcontext.Error
---@field _VERSION string
local M = {}

---The root of all contexts: never ends, no deadline, no values.
---@return lcontext.Context
function M.background() end

---As background, where it is not clear yet whose context is to be used.
---@return lcontext.Context
function M.todo() end

---A context that ends when `cancel` is called or when the parent ends.
---@param parent lcontext.Context
---@return lcontext.Context ctx
---@return lcontext.Cancel cancel
function M.with_cancel(parent) end

---As with_cancel, and ends with DeadlineExceeded at `t`.
---@param parent lcontext.Context
---@param t number Unix seconds; math.huge: no deadline of its own
---@param cause? any the cause if this deadline ends it
---@return lcontext.Context ctx
---@return lcontext.Cancel cancel
function M.with_deadline(parent, t, cause) end

---As with_deadline, `seconds` from now.
---@param parent lcontext.Context
---@param seconds number 0 or less: it is born ended; math.huge: no deadline of its own
---@param cause? any
---@return lcontext.Context ctx
---@return lcontext.Cancel cancel
function M.with_timeout(parent, seconds, cause) end

---@param parent lcontext.Context
---@param key any not nil, not NaN
---@param value any nil masks a value further up
---@return lcontext.Context
function M.with_value(parent, key, value) end

---Many keys in one layer.
---@param parent lcontext.Context
---@param values table<any, any> copied
---@return lcontext.Context
function M.with_values(parent, values) end

---The values of the parent, and nothing else of it.
---@param parent lcontext.Context
---@return lcontext.Context
function M.without_cancel(parent) end

---Ends with the first of the contexts to end. Values are looked up from left to right.
---@param ctx lcontext.Context
---@param ... lcontext.Context
---@return lcontext.Context ctx
---@return lcontext.Cancel cancel
function M.merge(ctx, ...) end

---Has `f` run once, after ctx has ended, at a dispatch point of this Lua state.
---@param ctx lcontext.Context
---@param f function
---@return lcontext.Stop stop
function M.after_func(ctx, f) end

---Why ctx ended; nil while it is live.
---@param ctx lcontext.Context
---@return any
function M.cause(ctx) end

---A new key that prints as `name`.
---@param name? string
---@return lcontext.Key
function M.key(name) end

---Unix seconds.
---@return number
function M.now() end

---Runs what is due in this Lua state.
---@param seconds? number how long to wait for the first; default 0
---@return integer count callbacks and waiters
function M.dispatch(seconds) end

---A descriptor that is readable when dispatch() has something to do.
---@return integer? fd
---@return string? err
function M.pollfd() end

---Waits for the first of Done objects, or a number of seconds. nils are never ready.
---@param ... lcontext.Done|number|nil
---@return lcontext.Done|number first the one that is ready; the number when the time is up
function M.select(...) end

---How scripts are stopped in this process: sets what is given.
---@param options? lcontext.Interrupt
---@return lcontext.Interrupt options all of them, as they are now
function M.interrupt(options) end

---A token for another Lua state of this process, for `adopt`.
---@param ctx lcontext.Context
---@param cancel? lcontext.Cancel the right to cancel goes with it
---@return integer? token below 2^53; the same each time
---@return string? err
function M.share(ctx, cancel) end

---The context that has this token.
---@param token integer
---@return lcontext.Context? ctx nil: unknown, or gone
---@return lcontext.Cancel|string|nil cancel if it was shared; or the error
function M.adopt(token) end

---How many there are in this process.
---@return { contexts: integer, live: integer, timers: integer, callbacks: integer, waiters: integer }
function M.stats() end

-- Every function whose first parameter is a context is a method, too.
Context.with_cancel = M.with_cancel
Context.with_deadline = M.with_deadline
Context.with_timeout = M.with_timeout
Context.with_value = M.with_value
Context.with_values = M.with_values
Context.without_cancel = M.without_cancel
Context.merge = M.merge
Context.after_func = M.after_func
Context.share = M.share

return M
