/* SPDX-License-Identifier: MIT
 *
 * coroutine.c - drop-in equals of coroutine.resume, wrap and close and of xpcall.
 *
 * The first three tell which coroutines run, since a hook has to be armed on each of them: hooks are per
 * coroutine. xpcall keeps a message handler out of a stop: Lua runs it with hooks off, so one that loops could
 * not be stopped. All else they do as Lua's own.
 */
#include "guard.h"

#include <lualib.h>
#include <string.h>

static lctx_state *state_of(lua_State *L)
{
    return lua_touserdata(L, lua_upvalueindex(UP_STATE));
}

/* ---- Running a coroutine -------------------------------------------------------------------------------------- */

static int reset(lua_State *L, lua_State *co)
{
#if LUA_VERSION_RELEASE_NUM >= 50406
    return lua_closethread(co, L);
#else
    (void)L;
    return lua_resetthread(co);
#endif
}

static int run(lua_State *L, lctx_state *state, lua_State *co, int arguments, int *results)
{
    frame frame = {.co = co, .from = L};
    guard_enter_frame(state, &frame);
    int status = lua_resume(co, L, arguments, results);
    if (guard_was_killed(state, co)) {
        frame.closing = true;
        state->killed = NULL;
        if (reset(L, co) == LUA_OK)
            guard_push_stop(co, state);
        status = LUA_ERRRUN;
    }
    guard_leave_frame(state, &frame, status != LUA_OK && status != LUA_YIELD);
    return status;
}

static int close_coroutine(lua_State *L, lctx_state *state, lua_State *co)
{
    frame frame = {.co = co, .from = L, .closing = true};
    guard_enter_frame(state, &frame);
    int status = reset(L, co);
    guard_leave_frame(state, &frame, false);
    return status;
}

/* Resumes co with the arguments at the top. Returns how many results it has pushed, or -1 and an error. */
static int resume_with(lua_State *L, lctx_state *state, lua_State *co, int arguments)
{
    int results;
    if (!lua_checkstack(co, arguments)) {
        lua_pushliteral(L, "too many arguments to resume");
        return -1;
    }
    lua_xmove(L, co, arguments);
    int status = run(L, state, co, arguments, &results);
    if (status != LUA_OK && status != LUA_YIELD) {
        lua_xmove(co, L, 1);
        return -1;
    }
    if (!lua_checkstack(L, results + 1)) {
        lua_pop(co, results);
        lua_pushliteral(L, "too many results to resume");
        return -1;
    }
    lua_xmove(co, L, results);
    return results;
}

/* What Lua's own functions call the type that they want: that has changed within 5.4. And the one handler in C
 * that need not be kept out of a stop. Both are the same for all states that use one Lua library. */
static const char *_Atomic expected = "coroutine";
static _Atomic lua_CFunction traceback;

static lua_State *check_coroutine(lua_State *L)
{
    lua_State *co = lua_tothread(L, 1);
    luaL_argexpected(L, co, 1, atomic_load_explicit(&expected, memory_order_relaxed));
    return co;
}

static int resume(lua_State *L)
{
    lua_State *co = check_coroutine(L);
    int results = resume_with(L, state_of(L), co, lua_gettop(L) - 1);
    lua_pushboolean(L, results >= 0);
    if (results < 0)
        results = 1;
    lua_insert(L, -1 - results);
    return results + 1;
}

/* What wrap returns: upvalue 1 is the coroutine, 2 the state. */
static int resume_wrapped(lua_State *L)
{
    lua_State *co = lua_tothread(L, lua_upvalueindex(1));
    lctx_state *state = lua_touserdata(L, lua_upvalueindex(2));
    int results = resume_with(L, state, co, lua_gettop(L));
    if (results >= 0)
        return results;
    int status = lua_status(co);
    if (status != LUA_OK && status != LUA_YIELD) { /* it has failed: its variables are closed now */
        status = close_coroutine(L, state, co);
        lua_xmove(co, L, 1);
    }
    if (status != LUA_ERRMEM && lua_type(L, -1) == LUA_TSTRING) {
        luaL_where(L, 1);
        lua_insert(L, -2);
        lua_concat(L, 2);
    }
    return lua_error(L);
}

static int wrap(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_State *co = lua_newthread(L);
    lua_pushvalue(L, 1);
    lua_xmove(L, co, 1);
    lua_pushvalue(L, lua_upvalueindex(UP_STATE));
    lua_pushcclosure(L, resume_wrapped, 2);
    return 1;
}

/* "running" and "normal" cannot be closed. */
static const char *unclosable(lua_State *L, lua_State *co)
{
    lua_Debug info;
    if (L == co)
        return "running";
    return lua_status(co) == LUA_OK && lua_getstack(co, 0, &info) ? "normal" : NULL;
}

static int close(lua_State *L)
{
    lua_State *co = check_coroutine(L);
    const char *status = unclosable(L, co);
    if (status)
        return luaL_error(L, "cannot close a %s coroutine", status);
    if (close_coroutine(L, state_of(L), co) == LUA_OK) {
        lua_pushboolean(L, 1);
        return 1;
    }
    lua_pushboolean(L, 0);
    lua_xmove(co, L, 1);
    return 2;
}

/* ---- xpcall --------------------------------------------------------------------------------------------------- */

/* Whether the function that calls this was called for an error that a hook has raised. */
static int in_hook(lua_State *L)
{
    lua_Debug info;
    bool hook = lua_getstack(L, 1, &info) && lua_getinfo(L, "n", &info) && strcmp(info.namewhat, "hook") == 0;
    lua_pushboolean(L, hook);
    return 1;
}

/* Inside a guarded call, handlers are shielded. They are called by a tail call, so that one in Lua finds the
 * levels of the stack that it expects. debug.traceback, which would not, always returns. */
static const char shield_source[] = "local in_hook = ...\n"
                                    "return function(handler)\n"
                                    "  return function(err)\n"
                                    "    if in_hook() then return err end\n"
                                    "    return handler(err)\n"
                                    "  end\n"
                                    "end";

static int finish_xpcall(lua_State *L, int status, lua_KContext extra)
{
    if (status == LUA_OK || status == LUA_YIELD)
        return lua_gettop(L) - (int)extra;
    lua_pushboolean(L, 0);
    lua_pushvalue(L, -2);
    return 2;
}

/* Upvalue UP_COUNT + 1 is the shield. */
static int guarded_xpcall(lua_State *L)
{
    int count = lua_gettop(L);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_CFunction handler = lua_tocfunction(L, 2);
    if (state_of(L)->guards && (handler == NULL || handler != atomic_load(&traceback))) {
        lua_pushvalue(L, lua_upvalueindex(UP_COUNT + 1));
        lua_pushvalue(L, 2);
        lua_call(L, 1, 1);
        lua_replace(L, 2);
    }
    lua_pushboolean(L, 1);
    lua_pushvalue(L, 1);
    lua_rotate(L, 3, 2);
    int status = lua_pcallk(L, count - 2, LUA_MULTRET, 2, 2, finish_xpcall);
    return finish_xpcall(L, status, 2);
}

/* ---- Installing ----------------------------------------------------------------------------------------------- */

static void push_closure(lua_State *L, lua_CFunction function, int extra)
{
    for (int i = 1; i <= UP_COUNT; i++)
        lua_pushvalue(L, i);
    if (extra)
        lua_pushvalue(L, extra);
    lua_pushcclosure(L, function, UP_COUNT + (extra != 0));
}

static void learn_from_originals(lua_State *L)
{
    static const char *const catchers[] = {"pcall", "xpcall"};
    for (int i = 0; i < 2; i++) {
        if (lua_getglobal(L, catchers[i]) == LUA_TFUNCTION)
            guard_add_catcher(lua_tocfunction(L, -1));
        lua_pop(L, 1);
    }
    guard_add_catcher(guarded_xpcall);
    if (lua_getglobal(L, LUA_DBLIBNAME) == LUA_TTABLE) {
        lua_getfield(L, -1, "traceback");
        atomic_store(&traceback, lua_tocfunction(L, -1));
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    if (lua_getglobal(L, LUA_COLIBNAME) == LUA_TTABLE) {
        lua_getfield(L, -1, "resume");
        if (lua_pcall(L, 0, 0, 0) != LUA_OK) {
            const char *message = lua_tostring(L, -1);
            if (message && strstr(message, "(thread expected"))
                atomic_store(&expected, "thread");
            lua_pop(L, 1);
        }
    }
    lua_pop(L, 1);
}

void bind_install_coroutines(lua_State *L)
{
    static const luaL_Reg functions[] = {{"resume", resume}, {"wrap", wrap}, {"close", close}, {NULL, NULL}};
    luaL_checkstack(L, UP_COUNT + 8, NULL);
    learn_from_originals(L);
    if (lua_getglobal(L, LUA_COLIBNAME) == LUA_TTABLE) {
        for (const luaL_Reg *function = functions; function->name; function++) {
            push_closure(L, function->func, 0);
            lua_setfield(L, -2, function->name);
        }
    }
    lua_pop(L, 1);
    if (lua_getglobal(L, "xpcall") == LUA_TFUNCTION) {
        if (luaL_loadbufferx(L, shield_source, sizeof shield_source - 1, "=lcontext", "t") != LUA_OK)
            lua_error(L);
        lua_pushcfunction(L, in_hook);
        lua_call(L, 1, 1);
        push_closure(L, guarded_xpcall, lua_gettop(L));
        lua_pushvalue(L, -1);
        bind_set_table(L, TABLE_XPCALL);
        lua_setglobal(L, "xpcall");
        lua_pop(L, 1);
        lua_pushvalue(L, -1);
        bind_set_table(L, TABLE_LUA_XPCALL);
    }
    lua_pop(L, 1);
}

void bind_reinstall_xpcall(lua_State *L)
{
    lua_getglobal(L, "xpcall");
    bind_push_table(L, TABLE_LUA_XPCALL);
    if (lua_isfunction(L, -1) && lua_rawequal(L, -1, -2)) {
        bind_push_table(L, TABLE_XPCALL);
        lua_setglobal(L, "xpcall");
    }
    lua_pop(L, 2);
}
