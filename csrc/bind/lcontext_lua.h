/* SPDX-License-Identifier: MIT
 *
 * lcontext_lua.h - contexts between Lua and C: for C modules that are handed one, and for hosts that hand one over.
 *
 * Nothing has to be linked. The functions are those of the module that `require "lcontext"` loads, so that there is
 * one tree in the process, whoever uses it:
 *
 *     static int fetch(lua_State *L)
 *     {
 *         const lctx_lua *lc = lctx_lua_open(L);
 *         lctx *ctx = lc->check(L, 1);
 *         while (more_to_do())
 *             if (lc->err(ctx) != LCTX_LIVE) {
 *                 lua_pushnil(L);
 *                 lc->push_err(L, ctx);
 *                 return 2;
 *             }
 *         ...
 *     }
 *
 * Functions that take a lua_State may be called only by the thread that runs it, and may raise errors in it. They need
 * a few stack slots, which they see to. All others are those of lcontext.h.
 */
#ifndef LCONTEXT_LUA_H
#define LCONTEXT_LUA_H

#include <lauxlib.h>
#include <lua.h>

#ifndef LCONTEXT_H
#include "lcontext.h"
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Counts incompatible changes of lctx_lua. Members are added at its end without one. */
#define LCTX_LUA_VERSION 1

typedef struct lctx_lua {
    unsigned version;    /* LCTX_LUA_VERSION of the module that is loaded */
    unsigned size;       /* sizeof(lctx_lua) there */
    const char *release; /* LCTX_VERSION there */

    /* The context at arg; raises "context expected" for anything else. A custom context is replaced, at arg, by a
     * context that stands for it. The result is borrowed: it lives as long as the value at arg. To keep it longer,
     * take a reference with ref; to give it back to Lua later, keep the Lua value (luaL_ref): a context in C does not
     * keep the Lua objects in it. */
    lctx *(*check)(lua_State *L, int arg);

    /* The context at index, borrowed; NULL if it is something else (a custom context, too). */
    lctx *(*test)(lua_State *L, int index);

    /* Pushes the context of this state for ctx: the same object each time, as long as Lua holds it. It has a reference
     * of its own. NULL pushes nil. */
    void (*push)(lua_State *L, lctx *ctx);

    /* Pushes a function that cancels ctx, as with_cancel returns one. */
    void (*push_cancel)(lua_State *L, lctx *ctx);

    /* Pushes what ctx:err() gives: nil, Canceled or DeadlineExceeded. */
    void (*push_err)(lua_State *L, lctx *ctx);

    /* lcontext.h: each is lctx_ and its name. */
    lctx *(*background)(void);
    lctx *(*todo)(void);
    lctx *(*ref)(lctx *ctx);
    void (*unref)(lctx *ctx);
    lctx *(*with_cancel)(lctx *parent);
    lctx *(*with_deadline)(lctx *parent, double unix_time, const lctx_any *cause);
    lctx *(*with_timeout)(lctx *parent, double seconds, const lctx_any *cause);
    lctx *(*with_value)(lctx *parent, const void *key, lctx_any value);
    lctx *(*with_values)(lctx *parent, size_t n, const lctx_entry *entries);
    lctx *(*with_named_value)(lctx *parent, const char *name, lctx_any value);
    lctx *(*without_cancel)(lctx *parent);
    lctx *(*merge)(size_t n, lctx *const *parents);
    lctx *(*custom)(lctx *source, const lctx_methods *methods, void *self);
    void (*cancel)(lctx *ctx);
    int (*cancel_cause)(lctx *ctx, const lctx_any *cause);
    lctx_err_t (*err)(lctx *ctx);
    bool (*can_end)(const lctx *ctx);
    bool (*deadline)(lctx *ctx, double *unix_time);
    double (*remaining)(lctx *ctx);
    bool (*cause)(lctx *ctx, lctx_any *cause);
    size_t (*cause_text)(lctx *ctx, char *buffer, size_t size);
    bool (*value)(lctx *ctx, const void *key, lctx_any *value);
    bool (*named_value)(lctx *ctx, const char *name, lctx_any *value);
    const char *(*strerror)(lctx_err_t err);
    double (*now)(void);
    double (*monotonic)(void);
    bool (*wait)(lctx *ctx, double seconds);
    lctx_notifier *(*notifier_new)(lctx *ctx);
    int (*notifier_fd)(const lctx_notifier *notifier);
    void (*notifier_free)(lctx_notifier *notifier);
    lctx_after *(*after_func)(lctx *ctx, lctx_callback *f, void *arg);
    bool (*after_stop)(lctx_after *after);
    void (*after_free)(lctx_after *after);
    void (*get_stats)(lctx_stats *stats);
} lctx_lua;

/* Where the module leaves its table in the registry, as a light userdata. */
#define LCTX_LUA_KEY "lcontext.api"

/* The functions of the loaded module; loads it if it is not. Raises if it is not to be found, or is too old or too new
 * for this header. The result is good until the process ends; call it in luaopen, or each time: it is one look into
 * the registry. */
static inline const lctx_lua *lctx_lua_open(lua_State *L)
{
    luaL_checkstack(L, 3, NULL);
    if (lua_getfield(L, LUA_REGISTRYINDEX, LCTX_LUA_KEY) != LUA_TLIGHTUSERDATA) {
        lua_pop(L, 1);
        lua_getglobal(L, "require");
        lua_pushstring(L, "lcontext.core");
        lua_call(L, 1, 0);
        lua_getfield(L, LUA_REGISTRYINDEX, LCTX_LUA_KEY);
    }
    const lctx_lua *api = (const lctx_lua *)lua_touserdata(L, -1);
    lua_pop(L, 1);
    if (api == NULL || api->version != LCTX_LUA_VERSION || api->size < sizeof *api)
        luaL_error(L, "lcontext %s is loaded, but this program was built for another one (%s)",
                   api ? api->release : "(unknown)", LCTX_VERSION);
    return api;
}

#ifdef __cplusplus
}
#endif
#endif
