/* SPDX-License-Identifier: MIT
 *
 * api.c - what C modules and hosts find in the registry (lcontext_lua.h).
 */
#include "bind.h"

#include "lcontext_lua.h"

static lctx *test(lua_State *L, int index)
{
    const lctx_box *box = bind_test_context(L, index);
    return box ? box->ctx : NULL;
}

static lctx *check(lua_State *L, int arg)
{
    lctx *ctx = test(L, arg);
    if (ctx)
        return ctx;
    if (lua_type(L, arg) != LUA_TTABLE && lua_type(L, arg) != LUA_TUSERDATA)
        luaL_typeerror(L, arg, "context");
    arg = lua_absindex(L, arg);
    luaL_checkstack(L, 4, NULL);
    bind_push_table(L, TABLE_MODULE);
    lua_getfield(L, -1, "wrap");
    lua_pushvalue(L, arg);
    if (lua_pcall(L, 1, 1, 0) != LUA_OK || (ctx = test(L, -1)) == NULL)
        luaL_typeerror(L, arg, "context");
    lua_replace(L, arg);
    lua_pop(L, 1);
    return ctx;
}

static void push(lua_State *L, lctx *ctx)
{
    if (ctx == NULL) {
        luaL_checkstack(L, 1, NULL);
        lua_pushnil(L);
        return;
    }
    bind_state(L)->shares = true;
    bind_push_node(L, lctx_ref(ctx));
}

static void push_cancel(lua_State *L, lctx *ctx)
{
    push(L, ctx);
    if (ctx)
        bind_push_cancel(L);
}

static void push_err(lua_State *L, lctx *ctx)
{
    lctx_err_t err = lctx_err(ctx);
    luaL_checkstack(L, 3, NULL);
    if (err == LCTX_LIVE)
        lua_pushnil(L);
    else
        bind_push_table(L, err == LCTX_CANCELED ? TABLE_CANCELED : TABLE_EXCEEDED);
}

static const lctx_lua api = {
    .version = LCTX_LUA_VERSION,
    .size = sizeof(lctx_lua),
    .release = LCTX_VERSION,
    .check = check,
    .test = test,
    .push = push,
    .push_cancel = push_cancel,
    .push_err = push_err,
    .background = lctx_background,
    .todo = lctx_todo,
    .ref = lctx_ref,
    .unref = lctx_unref,
    .with_cancel = lctx_with_cancel,
    .with_deadline = lctx_with_deadline,
    .with_timeout = lctx_with_timeout,
    .with_value = lctx_with_value,
    .with_values = lctx_with_values,
    .with_named_value = lctx_with_named_value,
    .without_cancel = lctx_without_cancel,
    .merge = lctx_merge,
    .custom = lctx_custom,
    .cancel = lctx_cancel,
    .cancel_cause = lctx_cancel_cause,
    .err = lctx_err,
    .can_end = lctx_can_end,
    .deadline = lctx_deadline,
    .remaining = lctx_remaining,
    .cause = lctx_cause,
    .cause_text = lctx_cause_text,
    .value = lctx_value,
    .named_value = lctx_named_value,
    .strerror = lctx_strerror,
    .now = lctx_now,
    .monotonic = lctx_monotonic,
    .wait = lctx_wait,
    .notifier_new = lctx_notifier_new,
    .notifier_fd = lctx_notifier_fd,
    .notifier_free = lctx_notifier_free,
    .after_func = lctx_after_func,
    .after_stop = lctx_after_stop,
    .after_free = lctx_after_free,
    .get_stats = lctx_get_stats,
};

void bind_offer_api(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)&api);
    lua_setfield(L, LUA_REGISTRYINDEX, LCTX_LUA_KEY);
}
