/* SPDX-License-Identifier: MIT
 *
 * dispatch.c - running what is due in this Lua state: callbacks, and coroutines that wait.
 */
#include "bind.h"

#include <errno.h>
#include <string.h>

#include "../core/timer.h"

/* An error in a callback is the callback's own: it is reported, and the others still run. */
static int report(lua_State *L)
{
    luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
    return 1;
}

static void run_callback(lua_State *L)
{
    lua_pushcfunction(L, report);
    lua_insert(L, -2);
    if (lua_pcall(L, 0, 0, -2) != LUA_OK) {
        lua_warning(L, "lcontext: error in a callback: ", 1);
        lua_warning(L, lua_isstring(L, -1) ? lua_tostring(L, -1) : "(no message)", 0);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

static void spawn_callback(lua_State *L)
{
    bind_push_table(L, TABLE_LOOP);
    lua_getfield(L, -1, "spawn");
    lua_pushvalue(L, -3);
    lua_call(L, 1, 0);
    lua_pop(L, 2);
}

static int run_note(lua_State *L, lctx_state *state, lctx_after *note, bool in_finalizer)
{
    lua_Integer id = note->tag;
    bool is_callback = note->head.kind == LCTX_KIND_CALLBACK;
    if (is_callback && in_finalizer && !state->attached) {
        lctx__list_append(&state->put_off, &note->link);
        return 0;
    }
    bool found = is_callback && bind_take_callback(L, note);
    if (is_callback && !found && bind_is_in_limbo(L, note)) {
        lctx__list_append(&state->limbo, &note->link);
        return 0;
    }
    lctx__after_unref(note);
    if (!is_callback)
        return bind_wake(L, id);
    if (!found)
        return 0;
    if (state->attached)
        spawn_callback(L);
    else
        run_callback(L);
    return 1;
}

/* Called protected, with the state as a light userdata, and whether a finalizer runs; returns the count. */
static int run_due(lua_State *L)
{
    lctx_state *state = lua_touserdata(L, 1);
    lua_Integer count = 0;
    for (lctx_after *note; (note = lctx__mailbox_take(state->mailbox));) {
        count += run_note(L, state, note, lua_toboolean(L, 2));
        state->dispatching = true; /* a wait in a callback that was stopped has left it false */
    }
    lua_pushinteger(L, count);
    return 1;
}

int bind_dispatch(lua_State *L, lctx_state *state)
{
    if (state->put_off && !bind_in_finalizer(L))
        bind_put_back(state); /* an error has kept whoever put it off from that */
    if (state->dispatching || state->mailbox == NULL || !lctx__mailbox_is_due(state->mailbox))
        return 0;
    luaL_checkstack(L, 8, NULL);
    state->dispatching = true;
    lua_pushcfunction(L, run_due);
    lua_pushlightuserdata(L, state);
    lua_pushboolean(L, bind_in_finalizer(L));
    int status = lua_pcall(L, 2, 1, 0);
    state->dispatching = false;
    if (status != LUA_OK)
        return lua_error(L);
    int count = (int)lua_tointeger(L, -1);
    lua_pop(L, 1);
    return count;
}

void bind_tell_loop(lua_State *L)
{
    luaL_checkstack(L, 4, NULL);
    bind_push_table(L, TABLE_LOOP);
    if (lua_getfield(L, -1, "due") != LUA_TNIL)
        lua_call(L, 0, 0);
    else
        lua_pop(L, 1);
    lua_pop(L, 1);
}

bool bind_in_finalizer(lua_State *L)
{
    lua_Debug info;
    for (int level = 0; lua_getstack(L, level, &info); level++)
        if (lua_getinfo(L, "n", &info) && strcmp(info.namewhat, "metamethod") == 0 && info.name &&
            strcmp(info.name, "__gc") == 0)
            return true;
    return false;
}

void bind_put_back(lctx_state *state)
{
    while (state->put_off && state->mailbox) {
        lctx_after *note = lctx__after_of(state->put_off);
        lctx__list_remove(&state->put_off, &note->link);
        lctx__mailbox_put_back(note);
    }
}

static int nothing(lua_State *L)
{
    (void)L;
    return 0;
}

void bind_block(lua_State *L, lctx_state *state, lctx_ns until)
{
    guard_check(L, state); /* the note that would end this may have been taken already */
    bool interrupted = !lctx__mailbox_wait(state->mailbox, until);
    guard_check(L, state);
    if (!interrupted)
        return;
    lua_pushcfunction(L, nothing); /* a call is where a hook that was set by a signal handler gets its chance */
    lua_call(L, 0, 0);
}

/* dispatch([seconds]) */
static int dispatch(lua_State *L)
{
    lctx_state *state = lua_touserdata(L, lua_upvalueindex(UP_STATE));
    lctx_ns until = lua_isnoneornil(L, 1) ? 0 : lctx__instant(bind_opt_seconds(L, 1));
    lctx__timers_attend(until);
    int count = bind_dispatch(L, state);
    while (count == 0 && !state->dispatching && state->mailbox && lctx__monotonic() < until) {
        bind_block(L, state, until);
        count = bind_dispatch(L, state);
    }
    bind_put_back(state);
    lua_pushinteger(L, count);
    return 1;
}

/* pollfd() */
static int pollfd(lua_State *L)
{
    lctx_state *state = lua_touserdata(L, lua_upvalueindex(UP_STATE));
    int fd = state->mailbox ? lctx__mailbox_fd(state->mailbox) : (errno = EBADF, -1);
    if (fd < 0)
        return luaL_fileresult(L, 0, NULL);
    lua_pushinteger(L, fd);
    return 1;
}

const luaL_Reg bind_dispatch_functions[] = {{"dispatch", dispatch}, {"pollfd", pollfd}, {NULL, NULL}};
