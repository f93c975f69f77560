/* SPDX-License-Identifier: MIT
 *
 * state.c - what the library keeps for a Lua state.
 */
#include "bind.h"

#include "../core/timer.h"

static const char state_key; /* its address is the key in the registry */

/* How many states there are: the last one to close lets the timer thread go. */
static _Atomic int states;

static _Atomic uintptr_t last_serial;

static void drop_notes(lctx_link **list)
{
    while (*list) {
        lctx_after *note = lctx__after_of(*list);
        lctx__list_remove(list, &note->link);
        lctx__after_unref(note);
    }
}

static int state_gc(lua_State *L)
{
    lctx_state *state = lua_touserdata(L, 1);
    if (state->mailbox == NULL)
        return 0;
    drop_notes(&state->limbo);
    drop_notes(&state->put_off);
    lctx__mailbox_close(state->mailbox);
    state->mailbox = NULL;
    guard_free_spare(state);
    if (atomic_fetch_sub(&states, 1) == 1)
        lctx__timers_rest();
    return 0;
}

static void set_new_table(lua_State *L, enum table table, const char *mode)
{
    lua_newtable(L);
    if (mode) {
        lua_createtable(L, 0, 1);
        lua_pushstring(L, mode);
        lua_setfield(L, -2, "__mode");
        lua_setmetatable(L, -2);
    }
    lua_setiuservalue(L, -2, table);
}

bool bind_push_module(lua_State *L)
{
    bool open = lua_rawgetp(L, LUA_REGISTRYINDEX, &state_key) == LUA_TUSERDATA;
    if (open)
        lua_getiuservalue(L, -1, TABLE_MODULE);
    lua_remove(L, open ? -2 : -1);
    return open;
}

lctx_state *bind_state_open(lua_State *L)
{
    lctx_state *state = lua_newuserdatauv(L, sizeof *state, TABLE_COUNT);
    *state = (lctx_state){.serial = atomic_fetch_add(&last_serial, 1) + 1};
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, state_gc);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    set_new_table(L, TABLE_REFS, "v");
    set_new_table(L, TABLE_OWNERS, "v");
    set_new_table(L, TABLE_ORPHANS, NULL);
    set_new_table(L, TABLE_KEPT, NULL);
    set_new_table(L, TABLE_WAITS, NULL);
    set_new_table(L, TABLE_OWNED_WAITS, "v");
    set_new_table(L, TABLE_TRACES, NULL);
    set_new_table(L, TABLE_OWN, NULL);
    set_new_table(L, TABLE_NODES, "v");
    set_new_table(L, TABLE_OBJECT_KEYS, "k");
    set_new_table(L, TABLE_SCALAR_KEYS, "v");
    state->mailbox = lctx__mailbox_new();
    if (state->mailbox == NULL)
        bind_no_memory(L);
    atomic_fetch_add(&states, 1);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &state_key);
    return state;
}

void bind_set_table(lua_State *L, enum table table)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &state_key);
    lua_insert(L, -2);
    lua_setiuservalue(L, -2, table);
    lua_pop(L, 1);
}

lctx_state *bind_state(lua_State *L)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &state_key);
    lctx_state *state = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return state;
}

void bind_push_table(lua_State *L, enum table table)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &state_key);
    lua_getiuservalue(L, -1, table);
    lua_remove(L, -2);
}
