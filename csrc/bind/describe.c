/* SPDX-License-Identifier: MIT
 *
 * describe.c - tostring(ctx): the way from the root down, as Go prints it.
 */
#include "bind.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "../core/context.h"
#include "../core/key.h"
#include "../core/layer.h"

/* Merges within merges are printed so deep, and so many contexts are named at most: both grow without bound
 * where contexts are shared. */
enum { MERGE_DEPTH = 4, CONTEXT_LIMIT = 1 << 20 };

typedef struct printer {
    lua_State *L;
    luaL_Buffer buffer;
} printer;

static void add(printer *out, const char *text)
{
    luaL_addstring(&out->buffer, text);
}

static void add_formatted(printer *out, const char *format, double number)
{
    char text[64];
    snprintf(text, sizeof text, format, number);
    add(out, text);
}

/* With milliseconds, without zeros at the end. */
static void add_seconds(printer *out, double seconds)
{
    char text[64];
    int length = snprintf(text, sizeof text, "%.3f", seconds);
    while (text[length - 1] == '0')
        length--;
    length -= text[length - 1] == '.';
    text[length] = '\0';
    add(out, strcmp(text, "-0") == 0 ? "0" : text);
}

/* UTC with milliseconds, as far as the calendar goes. */
static void add_time(printer *out, double unix_time)
{
    double ms = floor(unix_time * 1000 + 0.5);
    time_t seconds = (time_t)(fabs(ms) < 1e17 ? floor(ms / 1000) : 0);
    struct tm utc;
    char text[64];
    if (fabs(ms) >= 1e17 || gmtime_r(&seconds, &utc) == NULL) {
        add_formatted(out, "%.17g", unix_time);
        return;
    }
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
    add(out, text);
    add_formatted(out, ".%03.0fZ", ms - (double)seconds * 1000);
}

/* Keys show strings, numbers and booleans; of values only strings are shown, they may be secret or change. */
static void add_any(printer *out, const lctx_any *any, bool is_key)
{
    static const char *const types[] = {"<nil>", "boolean", "number", "number", "string", "userdata", NULL};
    if (any->type == LCTX_STRING)
        luaL_addlstring(&out->buffer, any->as.string, any->of.length);
    else if (any->type == LCTX_OBJECT)
        add(out, lua_typename(out->L, any->subtype));
    else if (!is_key || any->type == LCTX_POINTER)
        add(out, types[any->type]);
    else if (any->type == LCTX_BOOLEAN)
        add(out, any->as.boolean ? "true" : "false");
    else {
        bind_push_any(out->L, 1, any);
        luaL_tolstring(out->L, -1, NULL);
        lua_remove(out->L, -2);
        luaL_addvalue(&out->buffer);
    }
}

static void add_key(printer *out, const lctx_entry *entry)
{
    if (entry->value.reserved == LCTX_ENTRY_KEYED)
        add_any(out, lctx__key_content((const lctx_key *)entry->key), true);
    else
        add(out, "userdata");
}

/* A value that is a key object prints as its name. */
static void add_value(printer *out, const lctx_any *any)
{
    if (any->type == LCTX_OBJECT && any->subtype == LUA_TUSERDATA && bind_push_any(out->L, 1, any)) {
        if (bind_is_key(out->L, -1)) {
            luaL_tolstring(out->L, -1, NULL);
            lua_remove(out->L, -2);
            luaL_addvalue(&out->buffer);
            return;
        }
        lua_pop(out->L, 1);
    }
    add_any(out, any, false);
}

static void add_values(printer *out, const lctx *ctx)
{
    const lctx_layer *layer = ctx->layer;
    if (ctx->head.kind == LCTX_KIND_VALUES) {
        add_formatted(out, ".WithValues(%.0f)", layer->count);
        return;
    }
    add(out, ".WithValue(");
    add_key(out, &layer->entries[0]);
    add(out, ", ");
    add_value(out, &layer->entries[0].value);
    add(out, ")");
}

static void add_deadline(printer *out, const lctx *ctx)
{
    double unix_time;
    lctx__deadline((lctx *)ctx, &unix_time);
    lctx_ns left = ((const lctx_deadline_scope *)ctx)->when - lctx__monotonic();
    add(out, ".WithDeadline(");
    add_time(out, unix_time);
    add(out, " [");
    add_seconds(out, lctx__seconds(left));
    add(out, "s])");
}

static void add_context(printer *out, const lctx *ctx)
{
    switch (ctx->head.kind) {
    case LCTX_KIND_WITHOUT_CANCEL:
        add(out, ".WithoutCancel");
        break;
    case LCTX_KIND_VALUE:
    case LCTX_KIND_VALUES:
        add_values(out, ctx);
        break;
    case LCTX_KIND_CANCEL:
        add(out, ".WithCancel");
        break;
    case LCTX_KIND_DEADLINE:
        add_deadline(out, ctx);
        break;
    }
}

static void push_description(lua_State *L, const lctx *ctx, int depth, int *budget);

static void push_merge(lua_State *L, const lctx_merge_scope *merge, int depth, int *budget)
{
    lua_pushliteral(L, "context.Merge(");
    for (size_t i = 0; i < merge->count; i++) {
        if (depth == 0 || *budget <= 0) {
            lua_pushliteral(L, "\u2026)");
            lua_concat(L, 2);
            return;
        }
        push_description(L, merge->arms[i].parent, depth - 1, budget);
        lua_pushstring(L, i + 1 < merge->count ? ", " : ")");
        lua_concat(L, 3);
    }
}

static void push_custom(lua_State *L, const lctx *ctx)
{
    if (!bind_push_custom(L, ctx)) {
        lua_pushliteral(L, "custom");
        return;
    }
    if (luaL_callmeta(L, -1, "__tostring")) {
        luaL_tolstring(L, -1, NULL);
        lua_replace(L, -3);
        lua_pop(L, 1);
        return;
    }
    if (luaL_getmetafield(L, -1, "__name") == LUA_TNIL)
        lua_pushnil(L);
    if (lua_type(L, -1) != LUA_TSTRING) {
        lua_pop(L, 1);
        lua_pushliteral(L, "custom");
    }
    lua_replace(L, -2);
}

/* What a chain begins with: a root, a merge or a custom context. */
static void push_root(lua_State *L, const lctx *ctx, int depth, int *budget)
{
    switch (ctx->head.kind) {
    case LCTX_KIND_TODO:
        lua_pushliteral(L, "context.TODO");
        break;
    case LCTX_KIND_MERGE:
        push_merge(L, (const lctx_merge_scope *)ctx, depth, budget);
        break;
    case LCTX_KIND_CUSTOM:
        push_custom(L, ctx);
        break;
    default:
        lua_pushliteral(L, "context.Background");
    }
}

static bool is_root(const lctx *ctx)
{
    return ctx->parent == NULL || ctx->head.kind == LCTX_KIND_CUSTOM;
}

static void push_description(lua_State *L, const lctx *ctx, int depth, int *budget)
{
    int length = 0;
    const lctx *root = ctx;
    luaL_checkstack(L, 10, NULL);
    for (; !is_root(root) && length < *budget; root = root->parent)
        length++;
    *budget -= length + 1;
    const lctx **way = lua_newuserdatauv(L, sizeof *way * (size_t)length, 0);
    for (int i = length; i-- > 0; ctx = ctx->parent)
        way[i] = ctx;
    if (is_root(root))
        push_root(L, root, depth, budget);
    else
        lua_pushliteral(L, "\u2026");
    printer out = {.L = L};
    luaL_buffinit(L, &out.buffer);
    for (int i = 0; i < length; i++)
        add_context(&out, way[i]);
    luaL_pushresult(&out.buffer);
    lua_concat(L, 2);
    lua_replace(L, -2);
}

int bind_context_tostring(lua_State *L)
{
    int budget = CONTEXT_LIMIT;
    push_description(L, bind_check_context(L, 1)->ctx, MERGE_DEPTH, &budget);
    return 1;
}
