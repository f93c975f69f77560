/* SPDX-License-Identifier: MIT
 *
 * Bytes -> a Lua script over the whole API (grammar.h), run in a Lua state of its own. Whatever the script does: no
 * crash, no leak, no report of a sanitizer, and when the state is closed nothing of it is left. The first bytes may
 * have one allocation fail, one of Lua's or one of the library's.
 *
 * FUZZ_SHOW=1 in the environment shows each script before it runs.
 */
// link: csrc/bind/*.c -llua5.4
// compile: -Dmalloc=faulty_malloc -Dcalloc=faulty_calloc -Drealloc=faulty_realloc
#undef malloc
#undef calloc
#undef realloc
#include <errno.h>
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <time.h>

#include "../../csrc/core/lcontext.h"
#include "grammar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int luaopen_lcontext_core(lua_State *L);

/* ---- Memory that runs out -------------------------------------------------------------------------------------- */

void *malloc(size_t size);
void *calloc(size_t n, size_t size);
void *realloc(void *block, size_t size);
void *faulty_malloc(size_t size);
void *faulty_calloc(size_t n, size_t size);
void *faulty_realloc(void *block, size_t size);

enum { LUA_MEMORY = 64 << 20 };

/* The allocation of this thread that makes it 0 fails. */
static _Thread_local long core_countdown;
static long lua_countdown;
static size_t lua_bytes;

static bool core_fails(void)
{
    bool fails = core_countdown > 0 && --core_countdown == 0;
    if (fails)
        errno = ENOMEM;
    return fails;
}

void *faulty_malloc(size_t size)
{
    return core_fails() ? NULL : malloc(size);
}

void *faulty_calloc(size_t n, size_t size)
{
    return core_fails() ? NULL : calloc(n, size);
}

void *faulty_realloc(void *block, size_t size)
{
    return core_fails() ? NULL : realloc(block, size);
}

static void *allocate(void *unused, void *block, size_t before, size_t size)
{
    (void)unused;
    before = block ? before : 0;
    if (size == 0) {
        lua_bytes -= before;
        free(block);
        return NULL;
    }
    bool grows = size > before;
    if (grows && (lua_bytes + size - before > LUA_MEMORY || (lua_countdown > 0 && --lua_countdown == 0)))
        return NULL;
    void *moved = realloc(block, size);
    if (moved)
        lua_bytes += size - before;
    return moved;
}

/* ---- One script ------------------------------------------------------------------------------------------------ */

static const char prelude[] = "local core = require 'lcontext.core'\n"
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
                              "local function loop() return require 'lcontext.loop' end\n"
                              "local function custom(of, m) return setmetatable({}, { __index = {\n"
                              "  done = m.done or function() return of:done() end,\n"
                              "  err = m.err or function() return of:err() end,\n"
                              "  deadline = m.deadline or function() return of:deadline() end,\n"
                              "  value = m.value or function(_, key) return of:value(key) end } })\n"
                              "end\n";

static int run_script(lua_State *L)
{
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    lua_pushcfunction(L, luaopen_lcontext_core);
    lua_setfield(L, -2, "lcontext.core");
    lua_settop(L, 1);
    const char *script = lua_touserdata(L, 1);
    if (luaL_loadstring(L, script) != LUA_OK)
        return luaL_error(L, "syntax: %s", lua_tostring(L, -1));
    lua_call(L, 0, 0);
    return 0;
}

static void show_leftovers(const lctx_stats *left, const char *script)
{
    fprintf(stderr, "%s\nleft: %zu contexts, %zu live, %zu timers, %zu callbacks, %zu waiters\n", script,
            left->contexts, left->live, left->timers, left->callbacks, left->waiters);
}

/* Near the end of the C stack, or without memory, Lua cannot call a finalizer, and never tries again: what that one
 * would have let go stays. Lua only warns. */
static bool finalizer_lost;
static lctx_stats base; /* what has stayed for that reason */

static void on_warning(void *unused, const char *message, int more)
{
    (void)unused, (void)more;
    if (strstr(message, "stack overflow") || strstr(message, "not enough memory"))
        finalizer_lost = true;
}

/* The timer thread may be about to give back what it holds. */
static bool nothing_left(lctx_stats *left)
{
    for (int i = 0; i < 3000; i++) {
        lctx_get_stats(left);
        if (memcmp(left, &base, sizeof base) == 0)
            return true;
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    return false;
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
    lctx_stats left;
    lua_State *L = lua_newstate(allocate, NULL);
    finalizer_lost = false;
    lua_setwarnf(L, on_warning, NULL);
    luaL_openlibs(L);
    lua_pushcfunction(L, run_script);
    lua_pushlightuserdata(L, (void *)script);
    core_countdown = core_fault;
    lua_countdown = lua_fault;
    int status = lua_pcall(L, 1, 0, 0);
    lua_countdown = core_countdown = 0;
    if (status != LUA_OK)
        check_syntax(L, core_fault || lua_fault, script);
    /* What finalizers make while a state is being closed Lua never finalizes: from now on scripts make nothing. */
    lua_pushboolean(L, true);
    lua_setglobal(L, "CLOSING");
    lua_close(L);
    if (finalizer_lost) {
        lctx_get_stats(&base);
    } else if (!nothing_left(&left) || lua_bytes != 0) {
        show_leftovers(&left, script);
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
