/* SPDX-License-Identifier: MIT
 *
 * value.c - with_value, with_values, value: Lua values in contexts.
 */
#include "bind.h"

#include "../core/context.h"
#include "../core/layer.h"

/* ---- Lua values and the core -------------------------------------------------------------------------------- */

lctx_any bind_to_any(lua_State *L, lctx_state *state, int index)
{
    lctx_any any = {.type = LCTX_NIL};
    int type = lua_type(L, index);
    switch (type) {
    case LUA_TNONE:
    case LUA_TNIL:
        break;
    case LUA_TBOOLEAN:
        any.type = LCTX_BOOLEAN;
        any.as.boolean = lua_toboolean(L, index);
        break;
    case LUA_TNUMBER:
        any.type = lua_isinteger(L, index) ? LCTX_INTEGER : LCTX_NUMBER;
        if (any.type == LCTX_INTEGER)
            any.as.integer = lua_tointeger(L, index);
        else
            any.as.number = lua_tonumber(L, index);
        break;
    case LUA_TSTRING:
        any.type = LCTX_STRING;
        any.as.string = lua_tolstring(L, index, &any.of.length);
        break;
    case LUA_TLIGHTUSERDATA:
        any.type = LCTX_POINTER;
        any.as.pointer = lua_touserdata(L, index);
        break;
    default:
        any.type = LCTX_OBJECT;
        any.subtype = (uint16_t)type;
        any.as.integer = ++state->last_id;
        any.of.owner = (const void *)state->serial;
    }
    return any;
}

/* Lua clears weak values before it calls finalizers. One that asks for what is not in REFS any more finds it
 * where it is anchored: in the context at `context` or above. Pushes it, or nil. */
static void search_object(lua_State *L, int context, lua_Integer id)
{
    enum { SEARCH_LIMIT = 100000 };
    lua_createtable(L, 1, 0);
    int list = lua_gettop(L);
    lua_pushvalue(L, context);
    lua_rawseti(L, list, 1);
    lua_Integer first = 1, last = 1;
    bool found = false;
    while (!found && first <= last && first < SEARCH_LIMIT) {
        lua_settop(L, list);
        lua_rawgeti(L, list, first++);
        const lctx_box *box = lua_touserdata(L, -1);
        if (!lctx__is_scope(box->ctx) && box->id == id) {
            found = lua_getiuservalue(L, -1, CONTEXT_VALUE) != LUA_TNIL;
            break;
        }
        int parent = lua_getiuservalue(L, -1, CONTEXT_PARENT);
        if (parent == LUA_TUSERDATA)
            lua_rawseti(L, list, ++last);
        for (lua_Integer i = 1; parent == LUA_TTABLE && lua_rawgeti(L, list + 2, i) != LUA_TNIL; i++)
            lua_rawseti(L, list, ++last);
        lua_settop(L, list + 1);
        found = lua_getiuservalue(L, -1, CONTEXT_ANCHORS) == LUA_TTABLE && lua_rawgeti(L, -1, -id) != LUA_TNIL;
    }
    if (!found)
        lua_pushnil(L);
    lua_replace(L, list);
    lua_settop(L, list);
}

static bool push_object(lua_State *L, int context, const lctx_any *any)
{
    const lctx_state *state = lua_touserdata(L, lua_upvalueindex(UP_STATE));
    if (any->of.owner != (const void *)state->serial)
        return false;
    if (lua_rawgeti(L, lua_upvalueindex(UP_REFS), any->as.integer) == LUA_TNIL) {
        lua_pop(L, 1);
        search_object(L, context, any->as.integer);
    }
    if (!lua_isnil(L, -1))
        return true;
    lua_pop(L, 1);
    return false;
}

bool bind_push_any(lua_State *L, int context, const lctx_any *any)
{
    switch (any->type) {
    case LCTX_BOOLEAN:
        lua_pushboolean(L, any->as.boolean);
        return true;
    case LCTX_INTEGER:
        lua_pushinteger(L, any->as.integer);
        return true;
    case LCTX_NUMBER:
        lua_pushnumber(L, any->as.number);
        return true;
    case LCTX_STRING:
        lua_pushlstring(L, any->as.string, any->of.length);
        return true;
    case LCTX_POINTER:
        lua_pushlightuserdata(L, any->as.pointer);
        return true;
    case LCTX_OBJECT:
        return push_object(L, context, any);
    default:
        lua_pushnil(L);
        return true;
    }
}

void bind_set_ref(lua_State *L, lua_Integer id, int index)
{
    index = lua_absindex(L, index);
    bind_push_table(L, TABLE_REFS);
    lua_pushvalue(L, index);
    lua_rawseti(L, -2, id);
    lua_pop(L, 1);
}

void bind_drop_ref(lua_State *L, lua_Integer id)
{
    bind_push_table(L, TABLE_REFS);
    lua_rawgeti(L, -1, id);
    if (!lua_isnil(L, -1)) { /* so that this allocates nothing */
        lua_pushnil(L);
        lua_rawseti(L, -3, id);
    }
    lua_pop(L, 2);
}

/* ---- Constructors ------------------------------------------------------------------------------------------- */

/* Fills an entry and pushes what keeps its key alive. */
static lctx_entry to_entry(lua_State *L, lctx_state *state, int key, int value)
{
    lctx_entry entry;
    bool keyed;
    entry.key = bind_to_key(L, key, true, &keyed);
    entry.value = bind_to_any(L, state, value);
    entry.value.reserved = keyed ? LCTX_ENTRY_KEYED : 0;
    return entry;
}

static void set_context(lua_State *L, lctx_box *box, lctx *ctx)
{
    if (ctx == NULL)
        bind_no_memory(L);
    box->ctx = ctx;
}

/* with_value(parent, key, value) */
static int with_value(lua_State *L)
{
    lctx_box *parent = bind_check_parent(L, 1);
    lua_settop(L, 3);
    if (lua_isnil(L, 2))
        return luaL_error(L, "nil key");
    if (lua_type(L, 2) == LUA_TNUMBER && lua_tonumber(L, 2) != lua_tonumber(L, 2))
        return luaL_error(L, "key is not comparable");
    lctx_box *box = bind_push_context(L); /* 4 */
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, 4, CONTEXT_PARENT);
    lctx_entry entry = to_entry(L, parent->state, 2, 3);
    if (entry.value.type == LCTX_OBJECT) {
        lua_pushvalue(L, 3);
        lua_setiuservalue(L, 4, CONTEXT_VALUE);
        bind_set_ref(L, entry.value.as.integer, 3);
        box->id = entry.value.as.integer;
    }
    set_context(L, box, lctx__with_entries(parent->ctx, LCTX_KIND_VALUE, 1, &entry));
    lua_settop(L, 4);
    return 1;
}

static size_t count_pairs(lua_State *L, int table)
{
    size_t count = 0;
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1))
        count++;
    return count;
}

/* with_values(parent, {[key] = value, ...}) */
static int with_values(lua_State *L)
{
    lctx_box *parent = bind_check_parent(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    lctx_box *box = bind_push_context(L); /* 3 */
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, 3, CONTEXT_PARENT);
    size_t count = count_pairs(L, 2), i = 0;
    lctx_entry *entries = lua_newuserdatauv(L, sizeof *entries * count, 0); /* 4 */
    lua_createtable(L, (int)count, 0);                                      /* 5: holds the keys */
    for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1)) {
        if (i == count) /* a finalizer has run */
            return luaL_error(L, "the table was changed while it was read");
        entries[i] = to_entry(L, parent->state, 6, 7);
        lua_rawseti(L, 5, (lua_Integer)++i);
        if (entries[i - 1].value.type != LCTX_OBJECT)
            continue;
        lua_Integer id = entries[i - 1].value.as.integer;
        box->has_refs = true;
        bind_push_anchors(L, 3);
        lua_pushvalue(L, 7);
        lua_rawseti(L, -2, -id);
        lua_pop(L, 1);
        bind_set_ref(L, id, 7);
    }
    set_context(L, box, lctx__with_entries(parent->ctx, LCTX_KIND_VALUES, i, entries));
    lua_settop(L, 3);
    return 1;
}

/* ---- Lookup --------------------------------------------------------------------------------------------------- */

/* Calls the value method of a custom context with the key at index 2; leaves an answer on the stack. */
static bool ask_custom(void *arg, lctx *custom, lctx_any *answer)
{
    lua_State *L = arg;
    luaL_checkstack(L, 4, NULL);
    if (!bind_push_custom(L, custom))
        return false;
    lua_getfield(L, -1, "value");
    lua_insert(L, -2);
    lua_pushvalue(L, 2);
    lua_call(L, 2, 1);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        return false;
    }
    answer->type = LCTX_NIL;
    return true;
}

/* ctx:value(key) */
static int value(lua_State *L)
{
    lctx *ctx = bind_check_context(L, 1)->ctx;
    bool keyed;
    lctx_any answer;
    lua_settop(L, 2);
    const void *key = bind_to_key(L, 2, false, &keyed);
    const lctx_any *found = key ? lctx__find(ctx, key, ask_custom, L, &answer) : NULL;
    if (found == &answer)
        return 1;
    if (found == NULL || !bind_push_any(L, 1, found))
        lua_pushnil(L);
    return 1;
}

const luaL_Reg bind_value_constructors[] = {{"with_value", with_value}, {"with_values", with_values}, {NULL, NULL}};
const luaL_Reg bind_value_methods[] = {{"value", value}, {NULL, NULL}};
