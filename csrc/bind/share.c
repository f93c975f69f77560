/* SPDX-License-Identifier: MIT
 *
 * share.c - contexts that more than this Lua state knows: share, adopt, and what C hands over.
 *
 * A core context has one userdata in a state. Those that others may come with are entered in NODES, weakly, so that
 * they are found again. Objects of this state - values, causes - hang on userdata: they go when the state drops it,
 * also if others hold the core context. (Kept for them, no cycle through a value would ever be collected.)
 */
#include "bind.h"

#include <errno.h>

#include "../core/context.h"
#include "../core/share.h"

/* ---- Nodes ------------------------------------------------------------------------------------------------ */

static lctx_box *top_box(lua_State *L)
{
    return lua_touserdata(L, -1);
}

void bind_enter_node(lua_State *L)
{
    bind_push_table(L, TABLE_NODES);
    lua_pushvalue(L, -2);
    lua_rawsetp(L, -2, top_box(L)->ctx);
    lua_pop(L, 1);
}

static void set_context_metatable(lua_State *L)
{
    bind_push_table(L, TABLE_CONTEXT);
    lua_setmetatable(L, -2);
}

/* ---- Finding and making -------------------------------------------------------------------------------------- */

static bool push_known(lua_State *L, lctx *ctx)
{
    bind_push_table(L, TABLE_NODES);
    bool known = lua_rawgetp(L, -1, ctx) == LUA_TUSERDATA;
    lua_remove(L, -2);
    if (!known)
        lua_pop(L, 1);
    return known;
}

/* An empty context at the top gets its core context: from here on the collector gives the reference back. */
static void fill(lua_State *L, lctx *ctx)
{
    top_box(L)->ctx = ctx;
    bind_enter_node(L);
}

static void push_empty(lua_State *L)
{
    lctx_box *box = lua_newuserdatauv(L, sizeof *box, CONTEXT_COUNT);
    *box = (lctx_box){.tag = &bind_context_tag, .ctx = lctx__ended(), .state = bind_state(L), .borrowed = true};
    set_context_metatable(L);
}

/* The core context as a light userdata at 1. A value context also gets the scope that decides over it. */
static int push_node(lua_State *L)
{
    lctx *ctx = lua_touserdata(L, 1);
    lctx_scope *scope = lctx__is_scope(ctx) ? NULL : lctx__scope_of(ctx);
    if (push_known(L, ctx))
        return 1;
    push_empty(L);
    if (scope) {
        if (!push_known(L, &scope->ctx)) {
            push_empty(L);
            fill(L, lctx_ref(&scope->ctx));
        }
        lua_setiuservalue(L, -2, CONTEXT_PARENT);
    }
    fill(L, lctx_ref(ctx));
    return 1;
}

void bind_push_node(lua_State *L, lctx *ctx)
{
    luaL_checkstack(L, 10, NULL);
    lua_pushcfunction(L, push_node);
    lua_pushlightuserdata(L, ctx);
    int status = lua_pcall(L, 1, 1, 0);
    lctx_unref(ctx);
    if (status != LUA_OK)
        lua_error(L);
}

void bind_push_cancel(lua_State *L)
{
    top_box(L)->borrowed = false;
    lua_pushcclosure(L, bind_cancel, 1);
}

/* ---- Causes --------------------------------------------------------------------------------------------------- */

static int print(lua_State *L)
{
    luaL_tolstring(L, 1, NULL);
    return 1;
}

void bind_push_printed(lua_State *L, int index)
{
    index = lua_absindex(L, index);
    lua_pushcfunction(L, print);
    lua_pushvalue(L, index);
    if (lua_pcall(L, 1, 1, 0) != LUA_OK) {
        lua_pop(L, 1);
        lua_pushstring(L, luaL_typename(L, index));
    }
}

/* An object of this state that others may come to see as the cause: they will see it as it prints. */
static void describe(lua_State *L, lctx_reason *reason)
{
    if (reason == NULL || reason->value.type != LCTX_OBJECT || !bind_push_any(L, 1, &reason->value))
        return;
    size_t length;
    bind_push_printed(L, -1);
    const char *text = lua_tolstring(L, -1, &length);
    bool done = lctx__reason_describe(reason, text, length);
    lua_pop(L, 2);
    if (!done)
        bind_no_memory(L);
}

static void describe_scope(lua_State *L, const lctx_scope *scope)
{
    if (lctx__state(scope) != LCTX_LIVE)
        describe(L, scope->reason);
    if (scope->ctx.head.kind == LCTX_KIND_DEADLINE)
        describe(L, lctx__cause_of((const lctx_deadline_scope *)scope));
}

/* Whether the list at the top has not seen this merge yet. */
static bool is_new(lua_State *L, const lctx *merge)
{
    bool seen = lua_rawgetp(L, -1, merge) != LUA_TNIL;
    lua_pushboolean(L, 1);
    lua_rawsetp(L, -3, merge);
    lua_pop(L, 1);
    return !seen;
}

/* Causes that were given before this state shared anything did not say how they print. Those that can reach ctx
 * from above say it now. The contexts above are gone through from a list; merges once each. */
static void describe_causes(lua_State *L, lctx *ctx)
{
    lua_createtable(L, 1, 0);
    lua_pushlightuserdata(L, ctx);
    lua_rawseti(L, -2, 1);
    for (lua_Integer left = 1; left > 0;) {
        lua_rawgeti(L, -1, left--);
        ctx = lua_touserdata(L, -1);
        lua_pop(L, 1);
        for (; ctx; ctx = ctx->parent) {
            const lctx_merge_scope *merge = (const lctx_merge_scope *)ctx;
            if (lctx__is_scope(ctx))
                describe_scope(L, (const lctx_scope *)ctx);
            for (size_t i = 0; ctx->head.kind == LCTX_KIND_MERGE && i < merge->count; i++) {
                if (i == 0 && !is_new(L, ctx))
                    break;
                lua_pushlightuserdata(L, merge->arms[i].parent);
                lua_rawseti(L, -2, ++left);
            }
        }
    }
    lua_pop(L, 1);
}

/* ---- share and adopt --------------------------------------------------------------------------------------- */

/* The context that the cancel function at index 2 is for: the one at index 1, or one above it. */
static lctx *check_cancel(lua_State *L, const lctx *ctx)
{
    if (lua_isnoneornil(L, 2))
        return NULL;
    if (lua_tocfunction(L, 2) == bind_cancel && lua_getupvalue(L, 2, 1)) {
        lctx *canceled = top_box(L)->ctx;
        while (ctx && ctx != canceled)
            ctx = ctx->parent;
        lua_pop(L, 1);
        if (ctx)
            return canceled;
    }
    luaL_argerror(L, 2, "the cancel function of this context expected");
    return NULL;
}

/* share(ctx [, cancel]) */
static int share(lua_State *L)
{
    lctx_box *box = bind_check_context(L, 1);
    lctx *cancel = check_cancel(L, box->ctx);
    if (box->ctx == lctx__ended())
        return luaL_argerror(L, 1, "the context was collected");
    lua_settop(L, 1);
    box->state->shares = true;
    if (box->state->undescribed)
        describe_causes(L, box->ctx);
    bind_enter_node(L);
    uint64_t token = lctx__share(box->ctx, cancel);
    if (token == 0)
        return errno == ENOMEM ? bind_no_memory(L) : luaL_fileresult(L, 0, NULL);
    lua_pushinteger(L, (lua_Integer)token);
    return 1;
}

/* adopt(token) */
static int adopt(lua_State *L)
{
    lua_Integer token = luaL_checkinteger(L, 1);
    lctx *cancel = NULL, *ctx = lctx__adopt((uint64_t)token, &cancel);
    if (ctx == NULL) {
        lua_pushnil(L);
        lua_pushliteral(L, "no context has this token");
        return 2;
    }
    bind_state(L)->shares = true;
    bind_push_node(L, ctx); /* which holds what is above it */
    if (cancel == NULL)
        return 1;
    bind_push_node(L, lctx_ref(cancel));
    bind_push_cancel(L);
    return 2;
}

const luaL_Reg bind_share_constructors[] = {{"share", share}, {NULL, NULL}};
const luaL_Reg bind_share_functions[] = {{"adopt", adopt}, {NULL, NULL}};
