/* SPDX-License-Identifier: MIT
 *
 * host.h - a C host as a test: Lua states, scripts that have to return true, and a table of tests to run.
 */
#ifndef HOST_H
#define HOST_H

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <unistd.h>

typedef struct host_test {
    const char *name;
    int (*passes)(void);
} host_test;

static inline lua_State *new_state(void)
{
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    return L;
}

/* Runs a script with one argument; a message is printed if it does not return true. */
static inline int passes(lua_State *L, const char *script, lua_Integer argument)
{
    if (luaL_loadstring(L, script) == LUA_OK) {
        lua_pushinteger(L, argument);
        if (lua_pcall(L, 1, 1, 0) == LUA_OK && lua_toboolean(L, -1)) {
            lua_pop(L, 1);
            return 1;
        }
    }
    fprintf(stderr, "failed: %.300s\n", lua_isstring(L, -1) ? lua_tostring(L, -1) : "no result");
    return 0;
}

#define HOST_MAIN(tests) host_main(tests, (int)(sizeof(tests) / sizeof *(tests)))

static inline int host_main(const host_test *tests, int count)
{
    int failed = 0;
    alarm(120);
    for (int i = 0; i < count; i++)
        if (!tests[i].passes()) {
            printf("FAILED %s\n", tests[i].name);
            failed++;
        }
    printf("%d passed, %d failed\n", count - failed, failed);
    return failed != 0;
}

#endif
