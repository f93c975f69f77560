/* SPDX-License-Identifier: MIT
 *
 * custom.c - tables and userdata with the methods of a context, as parents.
 *
 * Such an object gets a scope of its own in the core, which ends with the context whose Done it shows. It is
 * made anew each time that the object is used as a parent: what done() returns may change.
 */
#include "bind.h"

#include <math.h>
#include <stdlib.h>

#include "../core/context.h"

/* What the core holds for us: which custom context it is, and of which state. */
typedef struct custom {
    uintptr_t owner; /* its serial */
    lua_Integer id;  /* in REFS */
} custom;

static const lctx_methods methods = {.drop = free}; /* the binding asks; the core cannot call Lua */

static bool has_methods(lua_State *L, int arg)
{
    static const char *const names[] = {"deadline", "done", "err", "value"};
    if (!lua_istable(L, arg) && lua_type(L, arg) != LUA_TUSERDATA)
        return false;
    if (lua_type(L, arg) == LUA_TUSERDATA && luaL_getmetafield(L, arg, "__index") == LUA_TNIL)
        return false;
    for (int i = 0; i < 4; i++) {
        bool found = lua_getfield(L, arg, names[i]) != LUA_TNIL;
        lua_pop(L, 1);
        if (!found)
            return false;
    }
    return true;
}

/* Pushes the context whose Done the object shows; nil if it never ends. */
static lctx_box *push_source(lua_State *L, int arg)
{
    lua_getfield(L, arg, "done");
    lua_pushvalue(L, arg);
    lua_call(L, 1, 1);
    if (lua_isnil(L, -1))
        return NULL;
    lctx_box *source = bind_push_context_of_done(L, -1);
    if (source == NULL)
        luaL_argerror(L, arg, "custom context: done() must return nil or the Done of a context");
    lua_remove(L, -2);
    return source;
}

lctx_box *bind_wrap_custom(lua_State *L, int arg)
{
    luaL_checkstack(L, 10, NULL);
    int top = lua_gettop(L);
    if (!has_methods(L, arg))
        luaL_typeerror(L, arg, "context");
    lua_settop(L, top);
    lctx_box *source = push_source(L, arg); /* top + 1 */
    lctx_box *box = bind_push_context(L);   /* top + 2 */
    lctx_any mark = {.as.integer = ++box->state->last_id};
    bind_push_anchors(L, -1);
    lua_pushvalue(L, arg);
    lua_rawseti(L, -2, -mark.as.integer);
    lua_pop(L, 1);
    bind_set_ref(L, mark.as.integer, arg);
    box->has_refs = true;
    lua_pushvalue(L, top + 1);
    lua_setiuservalue(L, top + 2, CONTEXT_PARENT);
    custom *self = malloc(sizeof *self);
    lctx *ctx = self ? lctx_custom(source ? source->ctx : NULL, &methods, self) : NULL;
    if (ctx == NULL) {
        free(self);
        bind_no_memory(L);
    }
    *self = (custom){box->state->serial, mark.as.integer};
    box->ctx = ctx;
    lua_replace(L, arg);
    lua_settop(L, top);
    return box;
}

bool bind_push_custom(lua_State *L, const lctx *ctx)
{
    const lctx_custom_scope *scope = (const lctx_custom_scope *)ctx;
    if (ctx->head.kind != LCTX_KIND_CUSTOM || scope->methods != &methods)
        return false;
    const custom *self = scope->self;
    const lctx_state *state = lua_touserdata(L, lua_upvalueindex(UP_STATE));
    if (self->owner != state->serial)
        return false;
    lua_rawgeti(L, lua_upvalueindex(UP_REFS), self->id);
    if (!lua_isnil(L, -1))
        return true;
    lua_pop(L, 1);
    return false;
}

bool bind_deadline(lua_State *L, lctx *ctx, double *unix_time)
{
    lctx_scope *limit = lctx__limit_of(ctx);
    luaL_checkstack(L, 4, NULL);
    if (limit == NULL || !bind_push_custom(L, &limit->ctx))
        return lctx__deadline(ctx, unix_time);
    lua_getfield(L, -1, "deadline");
    lua_insert(L, -2);
    lua_call(L, 1, 1);
    int is_number;
    *unix_time = lua_tonumberx(L, -1, &is_number);
    if (!is_number && !lua_isnil(L, -1))
        luaL_error(L, "custom context: deadline() must return nil or a number");
    lua_pop(L, 1);
    return is_number && !isnan(*unix_time) && *unix_time != INFINITY;
}
