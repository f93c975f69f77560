/* SPDX-License-Identifier: MIT
 *
 * bind.h - what the files of the binding share. They are the only ones that include lua.h.
 *
 * How Lua objects hang together, so that cycles through values, causes, callbacks and custom parents stay
 * garbage: nothing is anchored in the registry because of a context, except while something that is sure to
 * come (a deadline, a waiting coroutine) will need it. The core holds no Lua value at all.
 *
 *   context   userdata; uservalues: PARENT the userdata above it (a table of them for a merge), DONE its Done
 *             (VALUE: the one object that a with_value holds), ANCHORS a table of what the core refers to
 *             (SCOPE: the context that decides over a with_value, when somebody has asked):
 *             light userdata of a note -> callback; -id -> value, cause or custom context; id -> context below
 *             that is kept for its callbacks
 *   Done      userdata; uservalue: its context
 *   stop      userdata: the handle of a callback
 *   waitset   userdata: what one wait() or select() is registered with
 *   state     userdata, one for each Lua state; its uservalues are the tables of `enum table`
 *
 * The core knows a value or cause that is a table, function, userdata or thread by an id. It is found again
 * in the weak table REFS; VALUE or ANCHORS of the context that it was given to keeps it alive.
 */
#ifndef LCTX_BIND_H
#define LCTX_BIND_H

#include <lauxlib.h>
#include <lua.h>

#include "../core/public.h"
#include "../core/mailbox.h"

#pragma GCC visibility push(hidden)

#if LUA_VERSION_NUM < 504
#error "lcontext needs Lua 5.4"
#endif

/* ---- The Lua state ---- state.c */

typedef struct lctx_state {
    lctx_mailbox *mailbox;   /* NULL once the state is being closed */
    uintptr_t serial;        /* what the core knows it by, as the owner of objects; none is used twice */
    lua_Integer last_id;     /* ids: names for what the core refers to; none is used twice */
    const lua_State *parked; /* the coroutine that was registered with the attached loop last */
    uint32_t waiting;        /* coroutines that are registered with a loop */
    bool shares;             /* contexts of it may be seen by others: causes are to say how they print */
    bool undescribed;        /* it has given causes that do not */
    bool dispatching;        /* callbacks are being run */
    bool attached;           /* there is a loop in the table LOOP */
    lctx_link *limbo;        /* notes whose contexts are being collected */
    lctx_link *put_off;      /* notes of callbacks that were due while a finalizer dispatched or waited */

    /* Stopping scripts (guard.h); read by the signal handler, too. */
    struct guard *guards;            /* entered and not left, the latest first */
    struct lctx_frame *frames;       /* coroutines being run, the innermost first */
    unsigned stops;                  /* raised so far */
    const lua_State *killed;         /* the coroutine that a hook has made yield, to be closed */
    const struct guard *killer;      /* for this guard */
    struct tripwire *spare_wire;     /* for the next guard, or NULL */
    struct lctx_state *next_watched; /* of those that the handler of this thread knows of */
    bool watched;
} lctx_state;

/* The tables of a state: uservalues of its userdata. */
enum table {
    TABLE_CONTEXT = 1, /* metatable of contexts */
    TABLE_DONE,        /* metatable of Dones */
    TABLE_STOP,        /* metatable of stop handles */
    TABLE_WAITSET,     /* metatable of waitsets */
    TABLE_KEY,         /* metatable of keys */
    TABLE_REFS,        /* id -> value, cause or custom context that the core knows by it; weak values */
    TABLE_OWNERS,      /* id -> context that has callbacks; weak values */
    TABLE_ORPHANS,     /* id -> ANCHORS of a context that was collected with callbacks; false: room for it */
    TABLE_KEPT,        /* id -> context that is kept for its callbacks until its deadline */
    TABLE_WAITS,       /* id -> waitset of a coroutine that is registered with the attached loop */
    TABLE_OWNED_WAITS, /* the same, of coroutines that a loop keeps itself; weak values */
    TABLE_NODES,       /* light userdata of a core context -> context, of those that others may know; weak values */
    TABLE_OBJECT_KEYS, /* table, function, ... -> key; weak keys */
    TABLE_SCALAR_KEYS, /* string, number, boolean -> key; weak values */
    TABLE_LOOP,        /* the attached loop, or nil */
    TABLE_MODULE,      /* what luaopen has returned */
    TABLE_GUARD,       /* metatable of guards */
    TABLE_TRACES,      /* id -> traceback of a script that was stopped */
    TABLE_OWN,         /* sources of files in whose code stops wait */
    TABLE_XPCALL,      /* the drop-in, and Lua's own */
    TABLE_LUA_XPCALL,
    TABLE_CANCELED, /* the two error objects, for who has no upvalues */
    TABLE_EXCEEDED,
    TABLE_COUNT = TABLE_EXCEEDED
};

/* Pushes what luaopen has returned to this state before; false, and nothing, if it was not called yet. */
bool bind_push_module(lua_State *L);

/* Makes the state's userdata, and pushes it. */
lctx_state *bind_state_open(lua_State *L);

/* The table at the top becomes that table of the state. */
void bind_set_table(lua_State *L, enum table table);

/* The state that L belongs to. */
lctx_state *bind_state(lua_State *L);

/* Pushes a table of the state. */
void bind_push_table(lua_State *L, enum table table);

/* Upvalues that all functions of the module and all methods have in common. */
enum {
    UP_STATE = 1,
    UP_CANCELED,
    UP_EXCEEDED,
    UP_CONTEXT,
    UP_REFS,
    UP_BACKGROUND,
    UP_TODO,
    UP_SCALAR_KEYS,
    UP_COUNT = UP_SCALAR_KEYS
};

/* The userdata at index if it is of this size and begins with a pointer to `tag`; else NULL. Our userdata are
 * told by such tags: quicker than by their metatables, and a script with `debug` cannot forge them. */
static inline void *bind_test_tagged(lua_State *L, int index, size_t size, const void *tag)
{
    void *block = lua_touserdata(L, index);
    if (block == NULL || lua_rawlen(L, index) != size) /* the length of a light userdata is 0 */
        return NULL;
    return *(const void **)block == tag ? block : NULL;
}

/* ---- Errors ---- errors.c */

/* Pushes the two error objects, Canceled first. */
void bind_push_error_objects(lua_State *L);

/* Pushes nil or an error object. Only for functions with the common upvalues.
 *
 * Lua 5.4.4 (Debian 12) goes wrong in `a .. b .. c` when the stack moves during a __concat. What is asked for an error
 * is likely to put it into a message: so room for that is made here, where the stack may move. */
static inline void bind_push_err(lua_State *L, lctx_err_t err)
{
    if (err == LCTX_LIVE) {
        lua_pushnil(L);
        return;
    }
    lua_checkstack(L, 3 * LUA_MINSTACK);
    lua_pushvalue(L, lua_upvalueindex(err == LCTX_CANCELED ? UP_CANCELED : UP_EXCEEDED));
}

/* Raises "not enough memory". */
int bind_no_memory(lua_State *L);

/* The seconds of a wait: nil, none and infinity are for ever (INFINITY), negative is 0, NaN raises. */
double bind_opt_seconds(lua_State *L, int arg);

/* ---- Contexts ---- context.c */

enum { CONTEXT_PARENT = 1, CONTEXT_DONE, CONTEXT_ANCHORS, CONTEXT_COUNT = CONTEXT_ANCHORS };
enum { CONTEXT_VALUE = CONTEXT_DONE, CONTEXT_SCOPE = CONTEXT_ANCHORS }; /* of a with_value */

typedef struct lctx_box {
    const void *tag; /* bind_context_tag: how a context is told from any other userdata */
    lctx *ctx;       /* never NULL: after __gc a context that was canceled */
    lctx_state *state;
    lua_Integer id;     /* a scope's: its name in OWNERS; a shade's: of its one object; 0: none */
    uint32_t callbacks; /* in ANCHORS */
    bool has_refs;      /* there are ids of REFS in ANCHORS */
    bool borrowed;      /* it came without the right to cancel: <close> does nothing */
} lctx_box;

extern const char bind_context_tag;

/* The context at index, or NULL if it is something else. */
static inline lctx_box *bind_test_context(lua_State *L, int index)
{
    return bind_test_tagged(L, index, sizeof(lctx_box), &bind_context_tag);
}

/* Raises if it is something else. */
lctx_box *bind_check_context(lua_State *L, int arg);

/* The context at arg. A custom one is replaced by a context that stands for it. */
lctx_box *bind_check_context_or_custom(lua_State *L, int arg);

/* The same, of a context that is to be a parent: another error for nil. */
lctx_box *bind_check_parent(lua_State *L, int arg);

/* Pushes a new context userdata with an empty box; the indices say where state and metatable are. */
lctx_box *bind_new_context(lua_State *L, int state, int metatable);

/* The same in a function with the common upvalues. */
static inline lctx_box *bind_push_context(lua_State *L)
{
    return bind_new_context(L, lua_upvalueindex(UP_STATE), lua_upvalueindex(UP_CONTEXT));
}

/* Pushes the context at `index`, or the nearest above it that can end by itself, and returns its box; pushes
 * nothing and returns NULL if it can never end. */
lctx_box *bind_push_scope(lua_State *L, int index);

/* Pushes ANCHORS of the context at index; a new table if it has none. */
void bind_push_anchors(lua_State *L, int index);

/* The cancel function: upvalue 1 is its context. */
int bind_cancel(lua_State *L);

/* What the files register: functions of the module, methods of contexts, and constructors, which are both. */
extern const luaL_Reg bind_context_functions[], bind_context_methods[], bind_context_constructors[];
extern const luaL_Reg bind_context_metamethods[];

/* ---- Contexts that others know, too ---- share.c */

extern const luaL_Reg bind_share_functions[], bind_share_constructors[];

/* Enters the context at the top: whoever has its core context gets this one. */
void bind_enter_node(lua_State *L);

/* Pushes this state's context for a core context: the one that it has already, if that is entered, else a new one.
 * Takes over the caller's reference; also if it raises. */
void bind_push_node(lua_State *L, lctx *ctx);

/* The context at the top, which came from others, is replaced by its cancel function: this state has the right to. */
void bind_push_cancel(lua_State *L);

/* Pushes how the value at index prints; the name of its type if its __tostring fails. */
void bind_push_printed(lua_State *L, int index);

/* ---- For C modules and hosts ---- api.c */

/* Leaves the table of lcontext_lua.h in the registry. */
void bind_offer_api(lua_State *L);

/* ---- Custom contexts ---- custom.c */

/* The table or userdata at arg as a parent: replaces it by a context that stands for it, or raises. */
lctx_box *bind_wrap_custom(lua_State *L, int arg);

/* Whether ctx stands for a custom context of this state; pushes that. */
bool bind_push_custom(lua_State *L, const lctx *ctx);

/* The deadline of ctx, custom contexts asked. */
bool bind_deadline(lua_State *L, lctx *ctx, double *unix_time);

/* ---- Values ---- value.c */

extern const luaL_Reg bind_value_constructors[], bind_value_methods[];

/* A Lua value for the core; an object (table, function, userdata, thread) as a new id of this state. */
lctx_any bind_to_any(lua_State *L, lctx_state *state, int index);

/* Pushes what the core has of the context at index, in a function with the common upvalues. False, and nothing
 * pushed, for an object that is not here: another state's, or one that was collected with the context that it was
 * given to. */
bool bind_push_any(lua_State *L, int index, const lctx_any *any);

/* Enters the object at index in REFS, and takes it out. */
void bind_set_ref(lua_State *L, lua_Integer id, int index);
void bind_drop_ref(lua_State *L, lua_Integer id);

/* ---- Keys ---- key.c */

extern const luaL_Reg bind_key_functions[], bind_key_metamethods[];
bool bind_is_key(lua_State *L, int index);

/* The key at index, and whether it is an lctx_key (else: an address as it is); NULL for nil and NaN. With
 * `create`, pushes what keeps the lctx_key alive; without, a key that nobody has used is one that no context
 * has. */
const void *bind_to_key(lua_State *L, int index, bool create, bool *keyed);

/* ---- Printing ---- describe.c */

int bind_context_tostring(lua_State *L);

/* ---- Done and waiting ---- done.c */

extern const luaL_Reg bind_done_functions[], bind_done_methods[], bind_done_metamethods[];
extern const luaL_Reg bind_waitset_metamethods[];

/* Pushes the Done of the context at index; nil if it can never end. */
void bind_push_done(lua_State *L, int index);

/* The context of the Done at index, as its userdata pushed; NULL and nothing if it is something else. */
lctx_box *bind_push_context_of_done(lua_State *L, int index);

/* Wakes the coroutine of the waitset `id`. Returns 1 if there was one to wake. */
int bind_wake(lua_State *L, lua_Integer id);

/* A loop was attached: wakes those that were to be woken when there was none. */
void bind_wake_left_over(lua_State *L);

/* ---- Callbacks ---- callback.c */

extern const luaL_Reg bind_callback_constructors[], bind_stop_metamethods[];

/* Pushes the callback that a note stands for and forgets it; false if it was stopped. */
bool bind_take_callback(lua_State *L, const lctx_after *note);

/* Whether the callback of a note can be taken later only. Then the note goes into state->limbo. */
bool bind_is_in_limbo(lua_State *L, const lctx_after *note);

/* A context is collected: its callbacks wait in ORPHANS from now on. Allocates nothing. */
void bind_orphan_callbacks(lua_State *L, int index);

/* ---- Stopping scripts ---- guard.c, interrupt.c, own.c, coroutine.c (guard.h) */

extern const luaL_Reg bind_guard_methods[], bind_guard_metamethods[], bind_interrupt_functions[];

/* For the Lua part of the library. */
extern const luaL_Reg bind_own_functions[];

/* Whether what runs is inside a guarded call under ctx or under something below it: then ctx is not its own to end. */
bool guard_protects(const lctx_state *state, const lctx *ctx);

/* In a C function that was interrupted: raises if this call is to be stopped. */
void guard_check(lua_State *L, lctx_state *state);

/* The state is being closed. */
void guard_free_spare(lctx_state *state);

/* Puts the drop-in functions into the tables of Lua's own. The common upvalues are at 1..UP_COUNT. */
void bind_install_coroutines(lua_State *L);

/* The module is required again, perhaps by a test runner that has put the globals back to what they were. */
void bind_reinstall_xpcall(lua_State *L);

/* ---- Dispatching ---- dispatch.c */

extern const luaL_Reg bind_dispatch_functions[];

/* Runs what is due and returns how many callbacks and waiters that were; 0 inside a callback. */
int bind_dispatch(lua_State *L, lctx_state *state);

/* Whether a __gc is being run: callbacks never are in the collector. */
bool bind_in_finalizer(lua_State *L);

/* Whoever has dispatched says that it is done with that: what was put off is due again. */
void bind_put_back(lctx_state *state);

/* Tells the attached loop that there is something to dispatch. */
void bind_tell_loop(lua_State *L);

/* A dispatch point of a call that is not about dispatching: where a loop is attached, it is left to the loop. */
static inline void bind_dispatch_if_due(lua_State *L, lctx_state *state)
{
    if (state->mailbox == NULL || !lctx__mailbox_is_due(state->mailbox) || bind_in_finalizer(L))
        return;
    if (state->attached)
        bind_tell_loop(L);
    else
        bind_dispatch(L, state);
}

/* Blocks until something is due or the instant `until` at the latest, and lets a hook that a signal handler
 * has set (as lua.c does for Ctrl-C) run. */
void bind_block(lua_State *L, lctx_state *state, lctx_ns until);

#pragma GCC visibility pop
#endif
