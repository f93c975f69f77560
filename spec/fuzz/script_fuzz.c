/* SPDX-License-Identifier: MIT
 *
 * Bytes -> a Lua script over the whole API (grammar.h), run in a Lua state of its own. Whatever the script does: no
 * crash, no leak, no report of a sanitizer, and when the state is closed nothing of it is left. The first bytes may
 * have one allocation fail, one of Lua's or one of the library's.
 *
 * FUZZ_SHOW=1 in the environment shows each script before it runs.
 */
// link: csrc/bind/*.c -llua5.4 -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=free
#include "../core/faulty.h"
#include "../fault/faulty_lua.h"
#include "grammar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- One script ------------------------------------------------------------------------------------------------ */

static const char prelude[] =
    "local core = require 'lcontext.core'\n"
    "local M = core.context\n"
    "M.interrupt { mode = 'signal', count = 1000, grace = 0.002 }\n"
    "local c, k, d, s, t = {}, {}, {}, {}, {}\n"
    "for i = 1, 8 do c[i] = M.background() end\n"
    "local budget = 300\n"
    "local function B() budget = budget - 1 return budget > 0 and not CLOSING end\n"
    "local function slow_to_close()\n"
    "  return setmetatable({}, { __close = function() while true do end end })\n"
    "end\n"
    "local function canceling()\n"
    "  return setmetatable({}, { __close = function() k[1]('closed') end })\n"
    "end\n"
    /* never bare: a message handler would be called for the stop, with hooks off */
    "local function call(ctx, f) return pcall(ctx.call, ctx, f) end\n"
    "local function loop() return require 'lcontext.loop' end\n"
    /* for the one that it was given: were it for c[1], it could come to stand for itself */
    "local function stand_in(of)\n"
    "  return setmetatable({}, { __index = function(_, name) return of[name] end })\n"
    "end\n"
    "local function custom(of, m) return setmetatable({}, { __index = {\n"
    "  done = m.done or function() return of:done() end,\n"
    "  err = m.err or function() return of:err() end,\n"
    /* one that shows a deadline and another's Done may never end: nor would a call below it */
    "  deadline = m.deadline or function() if not m.done then return of:deadline() end end,\n"
    "  value = m.value or function(_, key) return of:value(key) end } })\n"
    "end\n";

static int run_script(lua_State *L)
{
    const char *script = lua_touserdata(L, 1);
    if (luaL_loadstring(L, script) != LUA_OK)
        return luaL_error(L, "syntax: %s", lua_tostring(L, -1));
    lua_call(L, 0, 0);
    return 0;
}

static void check_syntax(lua_State *L, bool faulty, const char *script)
{
    const char *error = lua_tostring(L, -1);
    if (!faulty && error && strncmp(error, "syntax", 6) == 0) {
        fprintf(stderr, "%s\n%s\n", script, error);
        abort(); /* the grammar is wrong */
    }
}

static void run(const char *script, long core_fault, long lua_fault)
{
    lua_State *L = new_faulty_state();
    lua_pushcfunction(L, run_script);
    lua_pushlightuserdata(L, (void *)script);
    countdown = core_fault;
    lua_nth = lua_fault;
    lua_requests = 0;
    int status = lua_pcall(L, 1, 0, 0);
    lua_nth = countdown = 0;
    if (status != LUA_OK)
        check_syntax(L, core_fault || lua_fault, script);
    /* What finalizers make while a state is being closed Lua never finalizes: from now on scripts make nothing. */
    lua_pushboolean(L, true);
    lua_setglobal(L, "CLOSING");
    lua_close(L);
    if (!nothing_left()) {
        fprintf(stderr, "%s\n%zu bytes of Lua\n", script, lua_bytes);
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char script[SCRIPT_MAX];
    grammar g = {.at = data, .end = data + size, .text = script};
    unsigned mode = take(&g);
    long nth = 1 + (mode % 4 >= 2 ? (long)take(&g) * (mode % 4 == 2 ? 1 : 16) : 0);
    emit(&g, "%s", prelude);
    while (g.at < g.end && has_room(&g))
        statement(&g, 0);
    if (getenv("FUZZ_SHOW"))
        fprintf(stderr, "---- mode %u, nth %ld\n%s\n", mode % 4, nth, script);
    run(script, mode % 4 == 2 ? nth : 0, mode % 4 == 3 ? nth + mode / 4 % 16 : 0);
    return 0;
}
