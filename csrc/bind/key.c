/* SPDX-License-Identifier: MIT
 *
 * key.c - Lua values as keys.
 *
 * A key of context.key() and a light userdata are an address already. Everything else gets an lctx_key: a
 * string, number or boolean the one that its content has in the whole process, an object one of its own. Both
 * are remembered in weak tables, as userdata that hold a reference.
 */
#include "../core/key.h"
#include "../core/layer.h"
#include "bind.h"

#include <math.h>
#include <string.h>

typedef struct key_box {
    const void *tag;
    lctx_key *key;
} key_box;

static const char key_tag;

static key_box *test_key(lua_State *L, int index)
{
    return bind_test_tagged(L, index, sizeof(key_box), &key_tag);
}

bool bind_is_key(lua_State *L, int index)
{
    return test_key(L, index) != NULL;
}

static int key_gc(lua_State *L)
{
    key_box *box = test_key(L, 1);
    if (box && box->key) {
        lctx__key_unref(box->key);
        box->key = NULL;
    }
    return 0;
}

static int key_tostring(lua_State *L)
{
    key_box *box = test_key(L, 1);
    luaL_argexpected(L, box, 1, "key");
    if (box->key == NULL) {
        lua_pushliteral(L, "key");
        return 1;
    }
    const lctx_any *name = lctx__key_content(box->key);
    lua_pushlstring(L, name->as.string, name->of.length);
    return 1;
}

static key_box *new_box(lua_State *L)
{
    key_box *box = lua_newuserdatauv(L, sizeof *box, 0);
    *box = (key_box){.tag = &key_tag};
    bind_push_table(L, TABLE_KEY);
    lua_setmetatable(L, -2);
    return box;
}

/* key([name]) */
static int key_new(lua_State *L)
{
    size_t length;
    const char *name = luaL_optlstring(L, 1, "key", &length);
    key_box *box = new_box(L);
    box->key = lctx__key_new(name, length);
    return box->key ? 1 : bind_no_memory(L);
}

/* Strings, numbers and booleans as what the core interns. A float with an integral value is that integer. */
static bool to_content(lua_State *L, int index, lctx_any *content)
{
    *content = (lctx_any){0};
    switch (lua_type(L, index)) {
    case LUA_TSTRING:
        content->type = LCTX_STRING;
        content->as.string = lua_tolstring(L, index, &content->of.length);
        return true;
    case LUA_TBOOLEAN:
        content->type = LCTX_BOOLEAN;
        content->as.boolean = lua_toboolean(L, index);
        return true;
    case LUA_TNUMBER: {
        int integral;
        content->type = LCTX_INTEGER;
        content->as.integer = lua_tointegerx(L, index, &integral);
        if (!integral) {
            content->type = LCTX_NUMBER;
            content->as.number = lua_tonumber(L, index);
        }
        return true;
    }
    }
    return false;
}

/* Looks in the weak table at `table`; pushes the box, or nil. */
static lctx_key *remembered(lua_State *L, int index, int table)
{
    lua_pushvalue(L, index);
    lua_rawget(L, table);
    key_box *box = lua_touserdata(L, -1);
    return box ? box->key : NULL;
}

/* The box at the top of the stack is the key of what is at index. */
static void remember(lua_State *L, int index, int table)
{
    lua_pushvalue(L, index);
    lua_pushvalue(L, -2);
    lua_rawset(L, table);
}

static lctx_key *scalar_key(lua_State *L, int index, const lctx_any *content, bool create)
{
    lctx_key *key = remembered(L, index, lua_upvalueindex(UP_SCALAR_KEYS));
    if (key)
        return key;
    lua_pop(L, 1);
    if (!create) { /* most keys that nobody has used stay that way: no userdata for those */
        key = lctx__key_of(content, false);
        if (key == NULL)
            return NULL;
        lctx__key_unref(key);
    }
    key_box *box = new_box(L);
    box->key = lctx__key_of(content, create);
    if (box->key)
        remember(L, index, lua_upvalueindex(UP_SCALAR_KEYS));
    else if (create)
        bind_no_memory(L);
    return box->key;
}

static lctx_key *object_key(lua_State *L, int index, bool create)
{
    bind_push_table(L, TABLE_OBJECT_KEYS);
    int table = lua_gettop(L);
    lctx_key *key = remembered(L, index, table);
    if (key == NULL && create) {
        lua_pop(L, 1);
        key_box *box = new_box(L);
        const char *name = luaL_typename(L, index);
        key = box->key = lctx__key_new(name, strlen(name));
        if (key == NULL)
            bind_no_memory(L);
        remember(L, index, table);
    }
    lua_remove(L, table);
    return key;
}

const void *bind_to_key(lua_State *L, int index, bool create, bool *keyed)
{
    const key_box *box = test_key(L, index);
    lctx_any content;
    int top = lua_gettop(L);
    const lctx_key *key;
    *keyed = false;
    if (lua_isnoneornil(L, index) || (lua_type(L, index) == LUA_TNUMBER && isnan(lua_tonumber(L, index))))
        return NULL;
    if (lua_islightuserdata(L, index)) {
        static const char null_address;
        const void *address = lua_touserdata(L, index);
        if (create)
            lua_pushvalue(L, index);
        return address ? address : &null_address;
    }
    *keyed = true;
    if (box) {
        key = box->key;
        if (key == NULL && create)
            luaL_error(L, "key was collected");
        lua_pushvalue(L, index);
    } else if (to_content(L, index, &content)) {
        key = scalar_key(L, index, &content, create);
    } else {
        key = object_key(L, index, create);
    }
    if (create)
        return key;
    lua_settop(L, top);
    static const char nobody_s;
    return key ? (const void *)key : &nobody_s;
}

const luaL_Reg bind_key_functions[] = {{"key", key_new}, {NULL, NULL}};
const luaL_Reg bind_key_metamethods[] = {{"__gc", key_gc}, {"__tostring", key_tostring}, {NULL, NULL}};
