/* SPDX-License-Identifier: MIT
 *
 * errors.c - the two error objects, and how arguments are refused.
 */
#include "bind.h"

#include <math.h>

static lctx_err_t check_error(lua_State *L, int arg)
{
    return *(lctx_err_t *)luaL_checkudata(L, arg, "lcontext.Error");
}

static int error_tostring(lua_State *L)
{
    lua_pushstring(L, lctx_strerror(check_error(L, 1)));
    return 1;
}

static void push_as_string(lua_State *L, int index)
{
    const lctx_err_t *error = luaL_testudata(L, index, "lcontext.Error");
    if (error)
        lua_pushstring(L, lctx_strerror(*error));
    else if (lua_isstring(L, index))
        lua_pushvalue(L, index);
    else
        luaL_tolstring(L, index, NULL);
}

/* Either side may be the error object. Calls nothing that it can do without: see bind_push_err. */
static int error_concat(lua_State *L)
{
    push_as_string(L, 1);
    push_as_string(L, 2);
    lua_concat(L, 2);
    return 1;
}

static int error_timeout(lua_State *L)
{
    lua_pushboolean(L, check_error(L, 1) == LCTX_DEADLINE_EXCEEDED);
    return 1;
}

static void push_error_object(lua_State *L, lctx_err_t err)
{
    lctx_err_t *object = lua_newuserdatauv(L, sizeof *object, 0);
    *object = err;
    luaL_setmetatable(L, "lcontext.Error");
}

void bind_push_error_objects(lua_State *L)
{
    static const luaL_Reg metamethods[] = {{"__tostring", error_tostring}, {"__concat", error_concat}, {NULL, NULL}};
    static const luaL_Reg methods[] = {{"timeout", error_timeout}, {"temporary", error_timeout}, {NULL, NULL}};
    luaL_newmetatable(L, "lcontext.Error");
    luaL_setfuncs(L, metamethods, 0);
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
    lua_pushliteral(L, "lcontext.Error");
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
    push_error_object(L, LCTX_CANCELED);
    push_error_object(L, LCTX_DEADLINE_EXCEEDED);
}

int bind_no_memory(lua_State *L)
{
    return luaL_error(L, "not enough memory");
}

double bind_opt_seconds(lua_State *L, int arg)
{
    if (lua_isnoneornil(L, arg))
        return INFINITY;
    double seconds = luaL_checknumber(L, arg);
    luaL_argcheck(L, !isnan(seconds), arg, "seconds expected, got NaN");
    return seconds > 0 ? seconds : 0;
}
