/* SPDX-License-Identifier: MIT
 *
 * callback.c - after_func: which callbacks there are, and what keeps them.
 *
 * A callback hangs in ANCHORS of its context, under the note that the core will post. So a callback that
 * refers to its own context does not keep it.
 *
 * While the context can still end by itself, the callback keeps it: it is entered
 *   - in KEPT, if it has a deadline: that will come;
 *   - in ANCHORS of the topmost contexts above it that can end: as long as something in that family is
 *     reachable, its callbacks are; when nothing is, the family is garbage, and the collector ends it.
 * Whether a callback still counts is decided in this state alone, by its being in ANCHORS (or ORPHANS).
 */
#include "bind.h"

#include "../core/context.h"
#include "../core/tree.h"

typedef struct stop_handle {
    const void *tag;
    lctx_state *state;
    lctx_after *note; /* NULL: a context that never ends, or freed */
    bool idle;        /* without a note: not stopped yet */
    bool complete;    /* registered; else something has failed on the way */
} stop_handle;

static const char stop_tag;

static stop_handle *test_stop(lua_State *L, int index)
{
    return bind_test_tagged(L, index, sizeof(stop_handle), &stop_tag);
}

/* ---- Keeping ------------------------------------------------------------------------------------------------ */

static bool has_deadline(const lctx *ctx)
{
    const lctx_scope *limit = lctx__limit_of(ctx);
    return limit && limit->ctx.head.kind == LCTX_KIND_DEADLINE;
}

/* ANCHORS[id] of the context at the top becomes what is at `value`. False if it was that before. Taking out
 * allocates nothing. */
static bool mark(lua_State *L, lua_Integer id, int value)
{
    if (!lua_isnil(L, value))
        bind_push_anchors(L, -1);
    else if (lua_getiuservalue(L, -1, CONTEXT_ANCHORS) != LUA_TTABLE) {
        lua_pop(L, 1);
        return false;
    }
    lua_rawgeti(L, -1, id);
    bool changes = !lua_rawequal(L, -1, value);
    if (changes) {
        lua_pushvalue(L, value);
        lua_rawseti(L, -3, id);
    }
    lua_pop(L, 2);
    return changes;
}

/* Marks the topmost contexts above the one at `start`: of a merge, itself and the topmost above each of its
 * parents. Merges are gone through once each, however they share parents, from a list at the top of the stack. */
static void mark_family(lua_State *L, int start, lua_Integer id, int value)
{
    lua_createtable(L, 1, 0);
    int list = lua_gettop(L);
    lua_pushvalue(L, start);
    lua_rawseti(L, list, 1);
    for (lua_Integer left = 1; left > 0;) {
        lua_rawgeti(L, list, left--);
        const lctx_box *above;
        int type;
        for (;;) {
            type = lua_getiuservalue(L, -1, CONTEXT_PARENT);
            above = type == LUA_TUSERDATA ? lua_touserdata(L, -1) : NULL;
            if (above == NULL || !lctx_can_end(above->ctx))
                break;
            lua_remove(L, -2);
        }
        lua_insert(L, -2); /* what is above it, the topmost */
        bool first = lctx__is_scope(((const lctx_box *)lua_touserdata(L, -1))->ctx) && mark(L, id, value);
        lua_pop(L, 1);
        for (lua_Integer i = 1; first && type == LUA_TTABLE && lua_rawgeti(L, -1, i) != LUA_TNIL; i++)
            lua_rawseti(L, list, ++left);
        lua_settop(L, list);
    }
    lua_pop(L, 1);
}

/* The context at `context` gets its first callback, or has lost its last one. */
static void keep(lua_State *L, int context, bool on)
{
    context = lua_absindex(L, context);
    lctx_box *box = lua_touserdata(L, context);
    if (on)
        lua_pushvalue(L, context);
    else
        lua_pushnil(L);
    if (has_deadline(box->ctx)) {
        bind_push_table(L, TABLE_KEPT);
        lua_pushvalue(L, -2);
        lua_rawseti(L, -2, box->id);
        lua_pop(L, 1);
    } else if (lctx__ends_by_itself((lctx_scope *)box->ctx)) {
        mark_family(L, context, box->id, lua_gettop(L));
    }
    lua_pop(L, 1);
}

/* The context is to get its first callback: it gets an id, and room for what the collector would have to
 * allocate otherwise. ANCHORS is at the top. */
static void enroll(lua_State *L, int context)
{
    lctx_box *box = lua_touserdata(L, context);
    lua_Integer id = box->id ? box->id : ++box->state->last_id;
    lua_pushinteger(L, 0);
    lua_setfield(L, -2, "callbacks");
    bind_push_table(L, TABLE_ORPHANS);
    lua_pushboolean(L, 0);
    lua_rawseti(L, -2, id);
    bind_push_table(L, TABLE_OWNERS);
    lua_pushvalue(L, context);
    lua_rawseti(L, -2, id);
    lua_pop(L, 2);
    box->id = id;
}

/* A context that the collector is done with gets a callback all the same, as if it had had it before. Pushes
 * anchors for it and returns their id. */
static lua_Integer enroll_orphan(lua_State *L, lctx_state *state)
{
    lua_Integer id = ++state->last_id;
    lua_createtable(L, 0, 2);
    lua_pushinteger(L, 1);
    lua_setfield(L, -2, "callbacks");
    bind_push_table(L, TABLE_ORPHANS);
    lua_pushvalue(L, -2);
    lua_rawseti(L, -2, id);
    lua_pop(L, 1);
    return id;
}

static void clear_entry(lua_State *L, enum table table, lua_Integer id)
{
    bind_push_table(L, table);
    lua_pushnil(L);
    lua_rawseti(L, -2, id);
    lua_pop(L, 1);
}

/* It has lost its last one. */
static void strike(lua_State *L, int context)
{
    const lctx_box *box = lua_touserdata(L, context);
    keep(L, context, false);
    clear_entry(L, TABLE_ORPHANS, box->id);
    clear_entry(L, TABLE_OWNERS, box->id);
}

/* Notes that came up while their context was being collected wait for this, too. */
static void put_back_limbo(lctx_state *state, lua_Integer id)
{
    lctx_link *all = state->limbo;
    state->limbo = NULL;
    while (all) {
        lctx_after *note = lctx__after_of(all);
        lctx__list_remove(&all, &note->link);
        if (note->tag == (intptr_t)id && state->mailbox)
            lctx__mailbox_put_back(note);
        else
            lctx__list_append(&state->limbo, &note->link);
    }
}

void bind_orphan_callbacks(lua_State *L, int index)
{
    const lctx_box *box = lua_touserdata(L, index);
    put_back_limbo(box->state, box->id);
    bind_push_table(L, TABLE_ORPHANS);
    lua_getiuservalue(L, index, CONTEXT_ANCHORS);
    lua_pushinteger(L, box->callbacks);
    lua_setfield(L, -2, "callbacks");
    lua_rawseti(L, -2, box->id);
    lua_pop(L, 1);
}

/* ---- Registering and taking ------------------------------------------------------------------------------- */

/* after_func(ctx, f) */
static int after_func(lua_State *L)
{
    bind_check_context_or_custom(L, 1);
    if (!lua_isfunction(L, 2) && luaL_getmetafield(L, 2, "__call") == LUA_TNIL)
        return luaL_typeerror(L, 2, "function");
    lua_settop(L, 2);
    stop_handle *stop = lua_newuserdatauv(L, sizeof *stop, 0); /* 3 */
    *stop = (stop_handle){.tag = &stop_tag, .state = lua_touserdata(L, lua_upvalueindex(UP_STATE))};
    bind_push_table(L, TABLE_STOP);
    lua_setmetatable(L, 3);
    lctx_box *box = bind_push_scope(L, 1); /* 4 */
    if (box == NULL) {
        stop->idle = stop->complete = true;
        return 1;
    }
    if (stop->state->mailbox == NULL)
        return luaL_error(L, "the Lua state is being closed");
    bool collected = box->ctx == lctx__ended();
    lua_Integer id = collected ? enroll_orphan(L, stop->state) : 0; /* 5: ANCHORS */
    if (!collected) {
        bind_push_anchors(L, 4);
        if (box->callbacks == 0)
            enroll(L, 4);
        id = box->id;
    }
    stop->note = lctx__mailbox_register(stop->state->mailbox, box->ctx, LCTX_KIND_CALLBACK, (intptr_t)id);
    if (stop->note == NULL)
        return bind_no_memory(L);
    lua_pushvalue(L, 2);
    lua_rawsetp(L, 5, stop->note);
    if (!collected && box->callbacks++ == 0)
        keep(L, 4, true);
    stop->complete = true;
    lua_settop(L, 3);
    return 1;
}

/* Replaces the ANCHORS at the top by the callback of the note, taken out of them; or pops them. */
static bool take_from(lua_State *L, const lctx_after *note)
{
    if (!lua_istable(L, -1)) {
        lua_pop(L, 1);
        return false;
    }
    if (lua_rawgetp(L, -1, note) == LUA_TNIL) {
        lua_pop(L, 2);
        return false;
    }
    lua_pushnil(L);
    lua_rawsetp(L, -3, note);
    lua_remove(L, -2);
    return true;
}

static bool take_from_owner(lua_State *L, const lctx_after *note)
{
    bind_push_table(L, TABLE_OWNERS);
    lua_rawgeti(L, -1, (lua_Integer)note->tag);
    lua_remove(L, -2);
    lctx_box *box = bind_test_context(L, -1);
    if (box)
        lua_getiuservalue(L, -1, CONTEXT_ANCHORS);
    if (box == NULL || !take_from(L, note)) {
        lua_pop(L, 1);
        return false;
    }
    lua_insert(L, -2); /* callback, context */
    if (--box->callbacks == 0)
        strike(L, lua_gettop(L));
    lua_pop(L, 1);
    return true;
}

static bool take_from_orphans(lua_State *L, const lctx_after *note)
{
    bind_push_table(L, TABLE_ORPHANS);
    lua_rawgeti(L, -1, (lua_Integer)note->tag);
    lua_remove(L, -2);
    lua_pushvalue(L, -1);
    if (!take_from(L, note)) {
        lua_pop(L, 1);
        return false;
    }
    lua_insert(L, -2); /* callback, anchors */
    lua_getfield(L, -1, "callbacks");
    lua_Integer left = lua_tointeger(L, -1) - 1;
    lua_pushinteger(L, left);
    lua_setfield(L, -3, "callbacks");
    lua_pop(L, 2);
    if (left == 0)
        clear_entry(L, TABLE_ORPHANS, (lua_Integer)note->tag);
    return true;
}

bool bind_take_callback(lua_State *L, const lctx_after *note)
{
    luaL_checkstack(L, 12, NULL);
    return take_from_owner(L, note) || take_from_orphans(L, note);
}

/* Lua clears weak values before it calls finalizers: for a moment a context that is to be collected is not in
 * OWNERS any more, and its callbacks not yet in ORPHANS. */
bool bind_is_in_limbo(lua_State *L, const lctx_after *note)
{
    bind_push_table(L, TABLE_OWNERS);
    bool owned = lua_rawgeti(L, -1, (lua_Integer)note->tag) != LUA_TNIL;
    bind_push_table(L, TABLE_ORPHANS);
    bool awaited = lua_rawgeti(L, -1, (lua_Integer)note->tag) == LUA_TBOOLEAN;
    lua_pop(L, 4);
    return awaited && !owned;
}

/* ---- The handle ------------------------------------------------------------------------------------------- */

static bool stop_callback(lua_State *L, stop_handle *stop)
{
    if (stop->note == NULL) {
        bool idle = stop->idle;
        stop->idle = false;
        return idle;
    }
    if (!bind_take_callback(L, stop->note))
        return false;
    lua_pop(L, 1);
    lctx__mailbox_stop(stop->note);
    return true;
}

/* stop() and <close> */
static int stop_call(lua_State *L)
{
    stop_handle *stop = test_stop(L, 1);
    luaL_argexpected(L, stop != NULL, 1, "stop handle");
    lua_pushboolean(L, stop_callback(L, stop));
    return 1;
}

static int stop_gc(lua_State *L)
{
    stop_handle *stop = test_stop(L, 1);
    if (stop == NULL || stop->note == NULL)
        return 0;
    if (!stop->complete) {
        stop_callback(L, stop);
        lctx__mailbox_stop(stop->note);
    }
    lctx__after_unref(stop->note);
    stop->note = NULL;
    return 0;
}

const luaL_Reg bind_stop_metamethods[] = {
    {"__call", stop_call}, {"__close", stop_call}, {"__gc", stop_gc}, {NULL, NULL}};
const luaL_Reg bind_callback_constructors[] = {{"after_func", after_func}, {NULL, NULL}};
