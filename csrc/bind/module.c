/* SPDX-License-Identifier: MIT
 *
 * module.c - puts the library together. `require "lcontext.core"` gives a table with the public module,
 * `context`, and what the Lua part of the library needs beside it.
 */
#include "../core/copy.h"
#include "bind.h"

static int count_functions(const luaL_Reg *functions)
{
    int count = 0;
    while (functions[count].name)
        count++;
    return count;
}

/* Sets functions in the table at the top; all get the common upvalues, which are at 1..UP_COUNT. */
static void set_functions(lua_State *L, const luaL_Reg *functions)
{
    luaL_checkstack(L, UP_COUNT + 4, NULL);
    for (; functions->name; functions++) {
        for (int i = 1; i <= UP_COUNT; i++)
            lua_pushvalue(L, i);
        lua_pushcclosure(L, functions->func, UP_COUNT);
        lua_setfield(L, -2, functions->name);
    }
}

/* Fills the metatable at the top. __metatable keeps scripts from changing what all contexts share. */
static void fill_metatable(lua_State *L, const char *name, const luaL_Reg *metamethods)
{
    set_functions(L, metamethods);
    lua_pushstring(L, name);
    lua_setfield(L, -2, "__name");
    lua_pushstring(L, name);
    lua_setfield(L, -2, "__metatable");
}

static void new_metatable(lua_State *L, const char *name, const luaL_Reg *metamethods, enum table table)
{
    lua_createtable(L, 0, count_functions(metamethods) + 3);
    fill_metatable(L, name, metamethods);
    lua_pushvalue(L, -1);
    bind_set_table(L, table);
}

/* ---- For the Lua part of the library ------------------------------------------------------------------------- */

/* attach(loop | nil) -> the loop that was attached before. A loop is a table with the functions
 *   resume(co)    called for a coroutine that has waited long enough
 *   spawn(f [, on_end])  runs f as a task, and on_end() when that has ended, however it has
 *   step(is_over) -> true; false, err when a task has failed; nil, err where it cannot be. Lets the tasks run for a
 *                 turn, which ends early if is_over() is true: for the main coroutine, which cannot yield to them
 *   due()         optional: called when a call in this state has made something due
 *   park(co)      optional: called when co is about to yield in a wait. For a coroutine that the loop keeps and
 *                 resumes in a way of its own it returns a function that yields in that way, and an argument for it */
static int attach(lua_State *L)
{
    lctx_state *state = lua_touserdata(L, lua_upvalueindex(UP_STATE));
    lua_settop(L, 1);
    if (!lua_isnil(L, 1))
        luaL_checktype(L, 1, LUA_TTABLE);
    bind_push_table(L, TABLE_LOOP);
    lua_insert(L, 1);
    state->attached = !lua_isnil(L, 2);
    bind_set_table(L, TABLE_LOOP);
    if (state->attached)
        bind_wake_left_over(L);
    return 1;
}

/* attached() -> the loop, or nil */
static int attached(lua_State *L)
{
    bind_push_table(L, TABLE_LOOP);
    return 1;
}

/* waiting() -> how many coroutines are registered with a loop */
static int waiting(lua_State *L)
{
    lctx_state *state = lua_touserdata(L, lua_upvalueindex(UP_STATE));
    lua_pushinteger(L, state->waiting);
    return 1;
}

/* parked(co) -> whether its last yield was a wait() or select() that the attached loop will end. */
static int parked(lua_State *L)
{
    lctx_state *state = lua_touserdata(L, lua_upvalueindex(UP_STATE));
    bool was_parked = state->parked == lua_tothread(L, 1);
    state->parked = NULL;
    lua_pushboolean(L, was_parked);
    return 1;
}

/* wrap(custom) -> a context that stands for it */
static int wrap(lua_State *L)
{
    bind_check_context_or_custom(L, 1);
    lua_settop(L, 1);
    return 1;
}

static const luaL_Reg internals[] = {{"wrap", wrap},       {"attach", attach}, {"attached", attached},
                                     {"waiting", waiting}, {"parked", parked}, {NULL, NULL}};

/* ---- The module ---------------------------------------------------------------------------------------------- */

static void push_root_context(lua_State *L, lctx *root)
{
    lctx_box *box = bind_new_context(L, UP_STATE, UP_CONTEXT);
    box->ctx = root;
    bind_enter_node(L);
}

static void fill_context_metatable(lua_State *L)
{
    lua_pushvalue(L, UP_CONTEXT);
    fill_metatable(L, "context", bind_context_metamethods);
    lua_newtable(L);
    set_functions(L, bind_context_methods);
    set_functions(L, bind_context_constructors);
    set_functions(L, bind_value_constructors);
    set_functions(L, bind_value_methods);
    set_functions(L, bind_callback_constructors);
    set_functions(L, bind_guard_methods);
    set_functions(L, bind_share_constructors);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}

static void make_other_metatables(lua_State *L)
{
    new_metatable(L, "Done", bind_done_metamethods, TABLE_DONE);
    lua_newtable(L);
    set_functions(L, bind_done_methods);
    lua_setfield(L, -2, "__index");
    new_metatable(L, "stop handle", bind_stop_metamethods, TABLE_STOP);
    new_metatable(L, "key", bind_key_metamethods, TABLE_KEY);
    new_metatable(L, "waitset", bind_waitset_metamethods, TABLE_WAITSET);
    new_metatable(L, "guard", bind_guard_metamethods, TABLE_GUARD);
    lua_pop(L, 5);
}

static void push_module(lua_State *L)
{
    lua_newtable(L);
    set_functions(L, bind_context_functions);
    set_functions(L, bind_context_constructors);
    set_functions(L, bind_value_constructors);
    set_functions(L, bind_key_functions);
    set_functions(L, bind_callback_constructors);
    set_functions(L, bind_dispatch_functions);
    set_functions(L, bind_done_functions);
    set_functions(L, bind_interrupt_functions);
    set_functions(L, bind_share_constructors);
    set_functions(L, bind_share_functions);
    lua_pushvalue(L, UP_CANCELED);
    lua_setfield(L, -2, "Canceled");
    lua_pushvalue(L, UP_EXCEEDED);
    lua_setfield(L, -2, "DeadlineExceeded");
    lua_pushliteral(L, LCTX_VERSION);
    lua_setfield(L, -2, "_VERSION");
}

/* Its contexts and ours would not know each other, and nobody would see why. */
static void refuse_second_copy(lua_State *L)
{
    const char *other = lctx__other_copy();
    if (other)
        luaL_error(L, "there is another copy of lcontext in this process, in %s: its contexts would not be seen here",
                   *other ? other : "the program itself");
}

__attribute__((visibility("default"))) int luaopen_lcontext_core(lua_State *L)
{
    lua_settop(L, 0);
    if (bind_push_module(L)) {
        bind_reinstall_xpcall(L);
        return 1;
    }
    refuse_second_copy(L);
    bind_state_open(L); /* the common upvalues, in their order */
    bind_push_error_objects(L);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    bind_set_table(L, TABLE_CONTEXT);
    bind_push_table(L, TABLE_REFS);
    push_root_context(L, lctx_background());
    push_root_context(L, lctx_todo());
    bind_push_table(L, TABLE_SCALAR_KEYS);
    fill_context_metatable(L);
    make_other_metatables(L);
    lua_pushvalue(L, UP_CANCELED);
    bind_set_table(L, TABLE_CANCELED);
    lua_pushvalue(L, UP_EXCEEDED);
    bind_set_table(L, TABLE_EXCEEDED);
    bind_install_coroutines(L);
    bind_offer_api(L);

    lua_newtable(L);
    set_functions(L, internals);
    set_functions(L, bind_own_functions);
    push_module(L);
    lua_setfield(L, -2, "context");
    lua_pushvalue(L, -1);
    bind_set_table(L, TABLE_MODULE);
    return 1;
}
