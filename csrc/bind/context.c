/* SPDX-License-Identifier: MIT
 *
 * context.c - contexts as userdata: the constructors, cancel, the questions, __gc and __close.
 */
#include "bind.h"

#include <math.h>

#include "../core/context.h"
#include "../core/layer.h"

const char bind_context_tag;

lctx_box *bind_check_context(lua_State *L, int arg)
{
    lctx_box *box = bind_test_context(L, arg);
    if (box == NULL)
        luaL_typeerror(L, arg, "context");
    return box;
}

lctx_box *bind_check_context_or_custom(lua_State *L, int arg)
{
    lctx_box *box = bind_test_context(L, arg);
    return box ? box : bind_wrap_custom(L, arg);
}

lctx_box *bind_check_parent(lua_State *L, int arg)
{
    if (lua_isnoneornil(L, arg))
        luaL_error(L, "cannot create context from nil parent");
    return bind_check_context_or_custom(L, arg);
}

/* The metatable comes first: from then on the collector takes care of what the box gets. */
lctx_box *bind_new_context(lua_State *L, int state, int metatable)
{
    lctx_box *box = lua_newuserdatauv(L, sizeof *box, CONTEXT_COUNT);
    *box = (lctx_box){.tag = &bind_context_tag, .ctx = lctx__ended(), .state = lua_touserdata(L, state)};
    lua_pushvalue(L, metatable);
    lua_setmetatable(L, -2);
    return box;
}

/* Gives the context at the top its core context, and the parent at index 1 for a parent. */
static void set_core(lua_State *L, lctx_box *box, lctx *ctx)
{
    if (ctx == NULL)
        bind_no_memory(L);
    box->ctx = ctx;
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, CONTEXT_PARENT);
}

/* ---- Anchors ---------------------------------------------------------------------------------------------- */

void bind_push_anchors(lua_State *L, int index)
{
    index = lua_absindex(L, index);
    if (lua_getiuservalue(L, index, CONTEXT_ANCHORS) == LUA_TTABLE)
        return;
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, index, CONTEXT_ANCHORS);
}

/* A value as a cause for the core. An object is anchored with the context; how it prints stays on the stack. */
static lctx_described anchor_cause(lua_State *L, int context, int value)
{
    lctx_box *box = lua_touserdata(L, context);
    lctx_described cause = {.any = bind_to_any(L, box->state, value)};
    if (cause.any.type != LCTX_OBJECT)
        return cause;
    lua_Integer id = cause.any.as.integer;
    bind_push_anchors(L, context);
    lua_pushvalue(L, value);
    lua_rawseti(L, -2, -id);
    lua_pop(L, 1);
    bind_set_ref(L, id, value);
    box->has_refs = true;
    if (box->state->shares) {
        bind_push_printed(L, value);
        cause.any.reserved = LCTX_ANY_DESCRIBED;
        cause.text = lua_tolstring(L, -1, &cause.length);
    } else {
        box->state->undescribed = true;
    }
    return cause;
}

/* The cause was not used after all. */
static void release_cause(lua_State *L, int context, const lctx_any *cause)
{
    if (cause->type != LCTX_OBJECT)
        return;
    bind_push_anchors(L, context);
    lua_pushnil(L);
    lua_rawseti(L, -2, -cause->as.integer);
    lua_pop(L, 1);
    bind_drop_ref(L, cause->as.integer);
}

/* ---- Cancel ------------------------------------------------------------------------------------------------ */

static void cancel_with_cause(lua_State *L, int context, int value)
{
    lctx *ctx = ((lctx_box *)lua_touserdata(L, context))->ctx;
    lctx_described cause = anchor_cause(L, context, value);
    lctx_any used;
    int error = lctx_cancel_cause(ctx, &cause.any);
    bool won = lctx_cause(ctx, &used) && used.type == cause.any.type && used.as.integer == cause.any.as.integer &&
               used.of.owner == cause.any.of.owner;
    if (!won)
        release_cause(L, context, &cause.any);
    if (error)
        bind_no_memory(L);
}

/* cancel([cause]): upvalue 1 is the context. */
int bind_cancel(lua_State *L)
{
    lctx_box *box = lua_touserdata(L, lua_upvalueindex(1));
    if (lua_isnoneornil(L, 1) || lctx_err(box->ctx) != LCTX_LIVE) {
        lctx_cancel(box->ctx);
    } else {
        lua_settop(L, 1);
        lua_pushvalue(L, lua_upvalueindex(1));
        cancel_with_cause(L, 2, 1);
    }
    bind_dispatch_if_due(L, box->state);
    return 0;
}

static int context_close(lua_State *L)
{
    lctx_box *box = bind_test_context(L, 1);
    if (box == NULL || box->borrowed || guard_protects(box->state, box->ctx))
        return 0;
    lctx_cancel(box->ctx);
    bind_dispatch_if_due(L, box->state);
    return 0;
}

/* ---- The collector ----------------------------------------------------------------------------------------- */

static void drop_refs(lua_State *L, lctx_box *box)
{
    if (!lctx__is_scope(box->ctx) && box->id)
        bind_drop_ref(L, box->id);
    if (!box->has_refs || lua_getiuservalue(L, 1, CONTEXT_ANCHORS) != LUA_TTABLE)
        return;
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1))
        if (lua_isinteger(L, -2) && lua_tointeger(L, -2) < 0)
            bind_drop_ref(L, -lua_tointeger(L, -2));
}

/* Allocates nothing, raises nothing, waits for nothing but a walk of another thread. */
static int context_gc(lua_State *L)
{
    lctx_box *box = bind_test_context(L, 1);
    if (box == NULL || box->ctx == lctx__ended())
        return 0;
    drop_refs(L, box);
    if (box->callbacks > 0)
        bind_orphan_callbacks(L, 1);
    lctx *ctx = box->ctx;
    box->ctx = lctx__ended();
    lctx_unref(ctx);
    return 0;
}

/* ---- Constructors ------------------------------------------------------------------------------------------ */

/* Pushes the cancel function of the context at the top. */
static int with_cancel_function(lua_State *L)
{
    lua_pushvalue(L, -1);
    lua_pushcclosure(L, bind_cancel, 1);
    return 2;
}

static int background(lua_State *L)
{
    lua_pushvalue(L, lua_upvalueindex(UP_BACKGROUND));
    return 1;
}

static int todo(lua_State *L)
{
    lua_pushvalue(L, lua_upvalueindex(UP_TODO));
    return 1;
}

/* with_cancel(parent) */
static int with_cancel(lua_State *L)
{
    lctx *parent = bind_check_parent(L, 1)->ctx;
    lctx_box *box = bind_push_context(L); /* first: it may raise */
    set_core(L, box, lctx_with_cancel(parent));
    return with_cancel_function(L);
}

/* A parent that is custom, or below one, is asked for its deadline here: the core cannot call Lua. */
static bool custom_is_sooner(lua_State *L, lctx *parent, double unix_time)
{
    const lctx_scope *limit = lctx__limit_of(parent);
    double theirs;
    return limit && limit->ctx.head.kind == LCTX_KIND_CUSTOM && bind_deadline(L, parent, &theirs) &&
           theirs <= unix_time;
}

typedef lctx *with_time(lctx *parent, double time, const lctx_any *cause);

static int new_with_time(lua_State *L, lctx *parent, double time, double unix_time, with_time *constructor)
{
    lua_settop(L, 3);
    lctx_box *box = bind_push_context(L);
    if (custom_is_sooner(L, parent, unix_time)) {
        set_core(L, box, lctx_with_cancel(parent));
        return with_cancel_function(L);
    }
    bool has_cause = !lua_isnil(L, 3);
    lctx_described cause = has_cause ? anchor_cause(L, 4, 3) : (lctx_described){0};
    lctx *ctx = constructor(parent, time, has_cause ? &cause.any : NULL);
    lua_settop(L, 4);
    set_core(L, box, ctx);
    if (has_cause && ctx->head.kind != LCTX_KIND_DEADLINE)
        release_cause(L, 4, &cause.any);
    return with_cancel_function(L);
}

static double check_time(lua_State *L, int arg)
{
    double time = luaL_checknumber(L, arg);
    luaL_argcheck(L, !isnan(time), arg, "number expected, got NaN");
    return time;
}

/* with_deadline(parent, t [, cause]) */
static int with_deadline(lua_State *L)
{
    lctx *parent = bind_check_parent(L, 1)->ctx;
    double time = check_time(L, 2);
    return new_with_time(L, parent, time, time, lctx_with_deadline);
}

/* with_timeout(parent, seconds [, cause]) */
static int with_timeout(lua_State *L)
{
    lctx *parent = bind_check_parent(L, 1)->ctx;
    const lctx_scope *limit = lctx__limit_of(parent);
    double seconds = check_time(L, 2), unix_time = 0;
    if (limit && limit->ctx.head.kind == LCTX_KIND_CUSTOM)
        unix_time = lctx_now() + seconds;
    return new_with_time(L, parent, seconds, unix_time, lctx_with_timeout);
}

/* without_cancel(parent) */
static int without_cancel(lua_State *L)
{
    lctx *parent = bind_check_parent(L, 1)->ctx;
    lctx_box *box = bind_push_context(L);
    set_core(L, box, lctx_without_cancel(parent));
    return 1;
}

/* merge(ctx1, ctx2, ...) */
static int merge(lua_State *L)
{
    int count = lua_gettop(L);
    lctx *soonest = NULL;
    double first = INFINITY;
    for (int i = 1; i <= count || i == 1; i++) {
        double time;
        if (lua_tocfunction(L, i) == bind_cancel)
            return luaL_argerror(L, i,
                                 "context expected, got a cancel function: with_cancel and its kin return two "
                                 "values, put each call in parentheses");
        lctx *parent = bind_check_parent(L, i)->ctx;
        if (bind_deadline(L, parent, &time) && (soonest == NULL || time < first)) {
            soonest = parent;
            first = time;
        }
    }
    luaL_checkstack(L, 8, "too many contexts");
    lua_createtable(L, count, 0);
    lctx **parents = lua_newuserdatauv(L, sizeof *parents * (size_t)count, 0);
    for (int i = 1; i <= count; i++) {
        parents[i - 1] = bind_test_context(L, i)->ctx;
        lua_pushvalue(L, i);
        lua_rawseti(L, count + 1, i);
    }
    lua_replace(L, 1); /* parents: kept until the core has read it */
    lctx_box *box = bind_push_context(L);
    box->ctx = lctx__merge((size_t)count, parents, soonest);
    if (box->ctx == NULL) {
        box->ctx = lctx__ended();
        return bind_no_memory(L);
    }
    lua_pushvalue(L, count + 1);
    lua_setiuservalue(L, -2, CONTEXT_PARENT);
    return with_cancel_function(L);
}

/* ---- Questions --------------------------------------------------------------------------------------------- */

static int err(lua_State *L)
{
    bind_push_err(L, lctx_err(bind_check_context(L, 1)->ctx));
    return 1;
}

/* An object of another state: as it prints. */
static void push_cause_of_others(lua_State *L, lctx *ctx)
{
    luaL_Buffer buffer;
    size_t length = lctx_cause_text(ctx, NULL, 0);
    char *text = luaL_buffinitsize(L, &buffer, length + 1);
    lctx_cause_text(ctx, text, length + 1);
    luaL_pushresultsize(&buffer, length);
}

static int cause(lua_State *L)
{
    lctx *ctx = bind_check_context(L, 1)->ctx;
    lctx_err_t err = lctx_err(ctx);
    lctx_any any;
    if (err == LCTX_LIVE || !lctx_cause(ctx, &any))
        bind_push_err(L, err);
    else if (!bind_push_any(L, 1, &any))
        push_cause_of_others(L, ctx);
    return 1;
}

/* cause(ctx): also of a custom context, whose Done says which context it ends with. */
static int cause_of(lua_State *L)
{
    bind_check_context_or_custom(L, 1);
    return cause(L);
}

static int deadline(lua_State *L)
{
    double time;
    lctx *ctx = bind_check_context(L, 1)->ctx;
    if (bind_deadline(L, ctx, &time)) {
        double ignored;
        lctx_deadline(ctx, &ignored); /* from now on err() looks at the clock */
        lua_pushnumber(L, time);
    } else {
        lua_pushnil(L);
    }
    return 1;
}

static int remaining(lua_State *L)
{
    lctx *ctx = bind_check_context(L, 1)->ctx;
    double seconds = lctx_remaining(ctx), time;
    if (isinf(seconds) && bind_deadline(L, ctx, &time)) { /* a custom context's */
        seconds = time - lctx_now();
        seconds = seconds > 0 ? seconds : 0;
    }
    if (isinf(seconds))
        lua_pushnil(L);
    else
        lua_pushnumber(L, seconds);
    return 1;
}

/* The way up from a value layer is gone once: the layer remembers where it has led. */
lctx_box *bind_push_scope(lua_State *L, int index)
{
    lctx_box *box = bind_check_context(L, index);
    bool is_value = box->ctx->head.kind == LCTX_KIND_VALUE;
    if (!lctx_can_end(box->ctx))
        return NULL;
    if (is_value) {
        if (lua_getiuservalue(L, index, CONTEXT_SCOPE) == LUA_TUSERDATA)
            return lua_touserdata(L, -1);
        lua_pop(L, 1);
    }
    lua_pushvalue(L, index);
    while (!lctx__is_scope(box->ctx)) {
        lua_getiuservalue(L, -1, CONTEXT_PARENT);
        lua_remove(L, -2);
        box = lua_touserdata(L, -1);
    }
    if (is_value) {
        lua_pushvalue(L, -1);
        lua_setiuservalue(L, index, CONTEXT_SCOPE);
    }
    return box;
}

static int done(lua_State *L)
{
    bind_check_context(L, 1);
    bind_push_done(L, 1);
    return 1;
}

/* ---- Registration ------------------------------------------------------------------------------------------ */

static int now(lua_State *L)
{
    lua_pushnumber(L, lctx_now());
    return 1;
}

static int stats(lua_State *L)
{
    lctx_stats stats;
    lctx_get_stats(&stats);
    const struct {
        const char *name;
        size_t count;
    } rows[] = {{"contexts", stats.contexts},
                {"live", stats.live},
                {"timers", stats.timers},
                {"callbacks", stats.callbacks},
                {"waiters", stats.waiters}};
    lua_createtable(L, 0, 5);
    for (int i = 0; i < 5; i++) {
        lua_pushinteger(L, (lua_Integer)rows[i].count);
        lua_setfield(L, -2, rows[i].name);
    }
    return 1;
}

const luaL_Reg bind_context_metamethods[] = {
    {"__gc", context_gc}, {"__close", context_close}, {"__tostring", bind_context_tostring}, {NULL, NULL}};

/* Functions of the module only. */
const luaL_Reg bind_context_functions[] = {
    {"background", background}, {"todo", todo}, {"cause", cause_of}, {"now", now}, {"stats", stats}, {NULL, NULL}};

/* Methods only. */
const luaL_Reg bind_context_methods[] = {
    {"err", err}, {"cause", cause}, {"deadline", deadline}, {"remaining", remaining}, {"done", done}, {NULL, NULL}};

/* Both: the first parameter is a context. */
const luaL_Reg bind_context_constructors[] = {{"with_cancel", with_cancel},
                                              {"with_deadline", with_deadline},
                                              {"with_timeout", with_timeout},
                                              {"without_cancel", without_cancel},
                                              {"merge", merge},
                                              {NULL, NULL}};
