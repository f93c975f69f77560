/* SPDX-License-Identifier: MIT
 *
 * own.c - the library's own Lua code, which a stop must not tear apart.
 *
 * A stop that struck between two steps of a loop would leave a task in no queue, and the next run would wait for it for
 * ever. So files that keep such a state say so when they are loaded, and the hook waits until the function that runs
 * is none of theirs. Code from elsewhere that claims to be of such a file wins no more than the grace.
 */
#include <string.h>

#include "guard.h"

static bool is_own(lua_State *L, const char *source)
{
    bool found = false;
    bind_push_table(L, TABLE_OWN);
    for (lua_Integer i = 1; !found && lua_rawgeti(L, -1, i) == LUA_TSTRING; i++) {
        found = strcmp(lua_tostring(L, -1), source) == 0;
        lua_pop(L, 1);
    }
    lua_settop(L, found ? -2 : -3);
    return found;
}

bool guard_is_in_own_code(lua_State *L, lua_Debug *info)
{
    return lua_getinfo(L, "S", info) && is_own(L, info->source);
}

/* uninterrupted(): while code of the file that calls this runs, stops wait. */
static int uninterrupted(lua_State *L)
{
    lua_Debug caller;
    bool known = lua_getstack(L, 1, &caller) && lua_getinfo(L, "S", &caller) && caller.source[0] == '@';
    if (known && !is_own(L, caller.source)) {
        bind_push_table(L, TABLE_OWN);
        lua_pushstring(L, caller.source);
        lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
    }
    return 0;
}

/* create(f) -> a coroutine. Where a debugger or a coverage tool has put a function of its own in the place of
 * coroutine.create, a stop would strike in that. */
static int create(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_State *co = lua_newthread(L);
    lua_pushvalue(L, 1);
    lua_xmove(L, co, 1);
    return 1;
}

const luaL_Reg bind_own_functions[] = {{"uninterrupted", uninterrupted}, {"create", create}, {NULL, NULL}};
