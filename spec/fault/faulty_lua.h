/* SPDX-License-Identifier: MIT
 *
 * faulty_lua.h - a Lua state whose memory runs out, with the module in it.
 */
#ifndef FAULTY_LUA_H
#define FAULTY_LUA_H

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "../../csrc/core/lcontext.h"
#include "../core/faulty.h"

int luaopen_lcontext_core(lua_State *L);

enum { LUA_MEMORY = 64 << 20 };

static long lua_nth;          /* the request for more memory that fails; 0: none */
static long lua_failures = 1; /* and those after it, as many as this in all: Lua tries each twice */
static long lua_requests;     /* so far, counted while one is to fail */
static size_t lua_bytes;

/* Near the end of the C stack, or without memory, Lua cannot call a finalizer, and never tries again: what that one
 * would have let go stays, contexts as well as the memory of Lua's own string buffers. Lua only warns. */
static bool finalizer_lost;
static bool was_warned; /* of anything else that was for want of memory */

static bool lua_fails(size_t more)
{
    if (lua_bytes + more > LUA_MEMORY)
        return true;
    return lua_nth > 0 && ++lua_requests >= lua_nth && lua_requests < lua_nth + lua_failures;
}

static void *lua_allocate(void *unused, void *block, size_t before, size_t size)
{
    (void)unused;
    before = block ? before : 0;
    if (size == 0) {
        lua_bytes -= before;
        __real_free(block);
        return NULL;
    }
    if (size > before && lua_fails(size - before))
        return NULL;
    void *moved = __real_realloc(block, size);
    if (moved)
        lua_bytes += size - before;
    return moved;
}

static lctx_stats base; /* what has stayed because a finalizer was lost */

/* Lua's own warnings are "error in __gc (...)", in pieces. */
static void on_warning(void *in_finalizer, const char *message, int more)
{
    bool *finalizer = in_finalizer;
    *finalizer = *finalizer || strcmp(message, "__gc") == 0;
    if (strstr(message, "stack overflow") || strstr(message, "not enough memory"))
        *(*finalizer ? &finalizer_lost : &was_warned) = true;
    *finalizer = *finalizer && more;
}

static lua_State *new_faulty_state(void)
{
    static bool in_finalizer;
    finalizer_lost = was_warned = in_finalizer = false;
    lua_State *L = lua_newstate(lua_allocate, NULL);
    lua_setwarnf(L, on_warning, &in_finalizer);
    luaL_openlibs(L);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    lua_pushcfunction(L, luaopen_lcontext_core);
    lua_setfield(L, -2, "lcontext.core");
    lua_pop(L, 1);
    return L;
}

/* Whether all is gone that came with a state. The timer thread may be about to give back what it holds. */
static bool nothing_left(void)
{
    lctx_stats left;
    for (int i = 0; i < 3000; i++) {
        lctx_get_stats(&left);
        if (finalizer_lost)
            base = left;
        if (memcmp(&left, &base, sizeof base) == 0)
            return lua_bytes == 0 || finalizer_lost;
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    fprintf(stderr, "left: %zu contexts, %zu live, %zu timers, %zu callbacks, %zu waiters\n", left.contexts, left.live,
            left.timers, left.callbacks, left.waiters);
    return false;
}

#endif
