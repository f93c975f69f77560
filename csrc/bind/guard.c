/* SPDX-License-Identifier: MIT
 *
 * guard.c - ctx:pcall and ctx:call: running a function that is stopped when the context ends.
 *
 * The stages of a stop
 *   1. The context ends. Whichever thread ends it trips the wire: sends the signal to the guard's thread.
 *   2. The signal handler there arms a hook on every coroutine that may be running. (In count mode the hook is
 *      there from the beginning and looks at the wire itself.)
 *   3. The hook raises the context's error, once, and disarms everything: the script cleans up at full speed.
 *      (It waits while the library's own Lua code runs: own.c.)
 *   4. When the grace is over, the wire is made hard and tripped again: from now on the hook raises at every
 *      instruction, until the call is left.
 * In between an alarm sends the signal again and again: one that comes just before a system call blocks would
 * not interrupt it.
 *
 * In a coroutine where nothing would catch the error, the hook yields instead, and who has resumed the coroutine
 * closes it: a coroutine that dies of a hook's error keeps its hooks off, and its __close handlers could not be
 * stopped. (They get no error that way, as with coroutine.close.)
 *
 * Which guard a hook serves. Coroutines that run are nested: of all that have been resumed and have not come
 * back, the one that runs is the innermost. So a guard covers whatever runs, unless its own coroutine is
 * suspended. A hook that finds no guard to serve takes itself off: that is how coroutines that inherited it, or
 * outlived the call, lose it.
 */
#include "guard.h"

#include <string.h>

#include "../core/after.h"
#include "../core/timer.h"

/* ---- Arming: the state's thread and its signal handler ---------------------------------------------------------- */

static void hook(lua_State *L, lua_Debug *info);
static void leave(lua_State *L, guard *guard);
static int guarded_pcall(lua_State *L);

static bool is_tripped(const guard *guard)
{
    return guard->wire && atomic_load_explicit(&guard->wire->tripped, memory_order_acquire);
}

static bool is_hard(const guard *guard)
{
    return atomic_load_explicit(&guard->wire->hard, memory_order_acquire);
}

/* Whether the hook has something to raise for this guard. */
static bool wants_stop(const guard *guard)
{
    return is_tripped(guard) && (!guard->raised || is_hard(guard));
}

/* Whether what runs now runs inside this guard's call: not if its coroutine is suspended, or dead by an error. */
static bool covers_running(const guard *guard)
{
    return lua_status(guard->L) == LUA_OK;
}

static bool has_guard(const lctx_state *state, const lua_State *L)
{
    for (const guard *guard = state->guards; guard; guard = guard->below)
        if (guard->L == L)
            return true;
    return false;
}

static void arm(lua_State *L, saved_hook *saved, int mask, int count)
{
    if (lua_gethook(L) != hook && !saved->armed) {
        saved->hook = lua_gethook(L);
        saved->mask = lua_gethookmask(L);
        saved->count = lua_gethookcount(L);
        atomic_signal_fence(memory_order_seq_cst);
        saved->armed = true;
    }
    lua_sethook(L, hook, mask, count);
}

/* Count events only: they come from Lua code. A call event would come for the library's own __close, too. */
static void arm_for_stop(lua_State *L, saved_hook *saved)
{
    arm(L, saved, LUA_MASKCOUNT, 1);
}

/* A hook that somebody has set in our place stays. */
static void disarm(lua_State *L, saved_hook *saved)
{
    if (!saved->armed)
        return;
    if (lua_gethook(L) == hook)
        lua_sethook(L, saved->hook, saved->mask, saved->count);
    saved->armed = false;
}

void guard_arm_state(lctx_state *state)
{
    bool wanted = false;
    for (guard *guard = state->guards; guard; guard = guard->below)
        if (wants_stop(guard)) {
            arm_for_stop(guard->L, &guard->saved);
            if (covers_running(guard))
                wanted = true;
            else
                atomic_store_explicit(&guard->wire->quiet, true, memory_order_relaxed);
        }
    for (frame *frame = state->frames; wanted && frame; frame = frame->below)
        arm_for_stop(frame->co, &frame->saved);
}

static void disarm_state(lctx_state *state)
{
    for (guard *guard = state->guards; guard; guard = guard->below)
        disarm(guard->L, &guard->saved);
    for (frame *frame = state->frames; frame; frame = frame->below)
        disarm(frame->co, &frame->saved);
}

void guard_enter_frame(lctx_state *state, frame *entered)
{
    entered->below = state->frames;
    atomic_signal_fence(memory_order_seq_cst);
    state->frames = entered;
    for (guard *guard = state->guards; guard; guard = guard->below) {
        if (guard->L != entered->co && !covers_running(guard))
            continue;
        if (wants_stop(guard)) {
            arm_for_stop(entered->co, &entered->saved);
            return;
        }
        if (guard->counting)
            arm(entered->co, &entered->saved, LUA_MASKCOUNT, guard->counting);
    }
}

/* A coroutine has failed inside of calls, which it will never leave by itself. */
static void leave_all(lua_State *L, lctx_state *state, const lua_State *dead)
{
    for (guard *guard = state->guards, *below; guard; guard = below) {
        below = guard->below;
        if (guard->L == dead) {
            leave(L, guard);
            lua_pop(L, 1);
        }
    }
}

void guard_leave_frame(lctx_state *state, frame *left, bool failed)
{
    state->frames = left->below;
    atomic_signal_fence(memory_order_seq_cst);
    if (failed && state->guards && lua_checkstack(left->from, 4))
        leave_all(left->from, state, left->co);
    if (!left->saved.armed) {
        if (lua_gethook(left->co) == hook && !has_guard(state, left->co))
            lua_sethook(left->co, NULL, 0, 0); /* inherited from whoever made it */
        return;
    }
    for (guard *guard = state->guards; guard; guard = guard->below)
        if (guard->L == left->co && guard->wire && !guard->saved.armed) {
            guard->saved = left->saved; /* suspended inside its call: it stays armed */
            return;
        }
    disarm(left->co, &left->saved);
}

/* ---- The hook ------------------------------------------------------------------------------------------------- */

static void push_error(lua_State *L, lctx *ctx)
{
    bind_push_table(L, lctx_err(ctx) == LCTX_DEADLINE_EXCEEDED ? TABLE_EXCEEDED : TABLE_CANCELED);
}

/* Called protected, with the guard: where the script was stuck, in this coroutine and in those that wait for it. */
static int write_trace(lua_State *L)
{
    guard *guard = lua_touserdata(L, 1);
    luaL_traceback(L, L, NULL, 1);
    const lua_State *inner = L;
    for (frame *frame = guard->state->frames; frame && inner != guard->L; frame = frame->below) {
        luaL_traceback(L, frame->from, "\nresumed by", 0);
        lua_concat(L, 2);
        inner = frame->from;
    }
    lua_Integer id = ++guard->state->last_id;
    bind_push_table(L, TABLE_TRACES);
    lua_pushvalue(L, -2);
    lua_rawseti(L, -2, id);
    guard->id = id;
    return 0;
}

/* No finalizer runs meanwhile: in a hook nothing could stop what that calls. */
static void remember_trace(lua_State *L, guard *guard)
{
    bool collects = lua_gc(L, LUA_GCISRUNNING);
    lua_gc(L, LUA_GCSTOP);
    lua_pushcfunction(L, write_trace);
    lua_pushlightuserdata(L, guard);
    if (lua_pcall(L, 1, 0, 0) != LUA_OK)
        lua_pop(L, 1); /* without memory there is no trace, but a stop */
    if (collects)
        lua_gc(L, LUA_GCRESTART);
}

static _Atomic lua_CFunction catchers[4]; /* the same in all states that use one Lua library */

void guard_add_catcher(lua_CFunction function)
{
    int i = 0;
    while (i < 3 && atomic_load(&catchers[i]) && atomic_load(&catchers[i]) != function)
        i++;
    atomic_store(&catchers[i], function);
}

static bool catches(lua_CFunction function)
{
    if (function == guarded_pcall)
        return true;
    for (int i = 0; function && i < 4; i++)
        if (atomic_load_explicit(&catchers[i], memory_order_relaxed) == function)
            return true;
    return false;
}

static bool would_catch(lua_State *L)
{
    lua_Debug info;
    bool found = false;
    for (int level = 0; !found && lua_getstack(L, level, &info); level++) {
        lua_getinfo(L, "f", &info);
        found = catches(lua_tocfunction(L, -1));
        lua_pop(L, 1);
    }
    return found;
}

static bool is_to_be_killed(lua_State *L, const lctx_state *state)
{
    const frame *top = state->frames;
    return top && top->co == L && !top->closing && lua_isyieldable(L) && !would_catch(L);
}

bool guard_was_killed(lctx_state *state, lua_State *co)
{
    return state->killed == co;
}

void guard_push_stop(lua_State *to, lctx_state *state)
{
    push_error(to, state->killer->ctx);
}

/* The first error of this guard: the grace begins, and the place is remembered. */
static void prepare_stop(lua_State *L, guard *guard)
{
    if (guard->raised)
        return;
    guard->raised = true;
    guard->stop = ++guard->state->stops;
    guard_wire_begin_grace(guard->wire);
    if (!guard->counting && !is_hard(guard))
        disarm_state(guard->state);
    remember_trace(L, guard);
}

static void raise(lua_State *L, guard *guard)
{
    prepare_stop(L, guard);
    push_error(L, guard->ctx);
    lua_error(L);
}

/* In a hook, as the last thing that it does. */
static void stop(lua_State *L, guard *guard)
{
    if (!is_to_be_killed(L, guard->state))
        raise(L, guard);
    prepare_stop(L, guard);
    guard->state->killed = L;
    guard->state->killer = guard;
    lua_yield(L, 0);
}

/* The outermost guard that what runs now is to be stopped for. */
static guard *find_stop(lctx_state *state)
{
    guard *found = NULL;
    for (guard *guard = state->guards; guard; guard = guard->below)
        if (wants_stop(guard) && covers_running(guard))
            found = guard;
    return found;
}

static guard *find_counting(lctx_state *state)
{
    for (guard *guard = state->guards; guard; guard = guard->below)
        if (guard->counting && covers_running(guard))
            return guard;
    return NULL;
}

static saved_hook *find_saved(lctx_state *state, lua_State *L)
{
    for (guard *guard = state->guards; guard; guard = guard->below)
        if (guard->L == L && guard->saved.armed)
            return &guard->saved;
    for (frame *frame = state->frames; frame; frame = frame->below)
        if (frame->co == L && frame->saved.armed)
            return &frame->saved;
    return NULL;
}

static void hook(lua_State *L, lua_Debug *info)
{
    luaL_checkstack(L, 10, NULL);
    lctx_state *state = bind_state(L);
    guard *counting = find_counting(state);
    if (counting)
        lctx_err(counting->ctx); /* where no thread looks after deadlines, this does */
    guard *wanted = find_stop(state);
    if (wanted) {
        bool waits = !is_hard(wanted) && guard_is_in_own_code(L, info);
        if (waits || is_hard(wanted))
            lua_sethook(L, hook, LUA_MASKCOUNT, 1);
        else if (counting)
            lua_sethook(L, hook, LUA_MASKCOUNT, counting->counting);
        if (!waits)
            stop(L, wanted);
        return;
    }
    if (counting)
        return;
    saved_hook *saved = find_saved(state, L);
    if (saved)
        disarm(L, saved);
    else
        lua_sethook(L, NULL, 0, 0);
}

static bool is_at_or_below(const lctx *below, const lctx *ctx)
{
    while (below && below != ctx)
        below = below->parent;
    return below != NULL;
}

/* Of a merge, its parents and what is above them belong to the caller, too. */
static bool guards_for(const guard *guard, const lctx *ctx)
{
    const lctx *root = guard->ctx;
    if (is_at_or_below(guard->ctx, ctx))
        return true;
    while (root->parent)
        root = root->parent;
    if (root->head.kind != LCTX_KIND_MERGE)
        return false;
    const lctx_merge_scope *merge = (const lctx_merge_scope *)root;
    for (size_t i = 0; i < merge->count; i++)
        if (is_at_or_below(merge->arms[i].parent, ctx))
            return true;
    return false;
}

bool guard_protects(const lctx_state *state, const lctx *ctx)
{
    for (const guard *guard = state->guards; guard; guard = guard->below)
        if (guard->entered && covers_running(guard) && guards_for(guard, ctx))
            return true;
    return false;
}

void guard_check(lua_State *L, lctx_state *state)
{
    guard *stop = state->guards ? find_stop(state) : NULL;
    if (stop)
        raise(L, stop);
}

/* ---- Entering and leaving --------------------------------------------------------------------------------------- */

static const char guard_tag;

/* The wire comes after all that the handler looks at: when it is up, that may want to arm. */
static void enter(lua_State *L, guard *guard)
{
    interrupt_settings settings = interrupt_get();
    bool by_signal = settings.by_signal && !atomic_load_explicit(&lctx__timers_unattended, memory_order_relaxed);
    guard->below = guard->state->guards;
    atomic_signal_fence(memory_order_seq_cst);
    guard->state->guards = guard;
    guard->entered = true;
    interrupt_watch(guard->state);
    guard->stops_before = guard->state->stops;
    if (!by_signal) {
        guard->counting = settings.count;
        arm(L, &guard->saved, LUA_MASKCOUNT, settings.count);
    }
    guard->wire = guard_wire_put_up(guard->state, guard->ctx, by_signal ? settings.signal : 0);
    if (!by_signal) /* callbacks are called in the order of registration: whom this wakes finds the wire tripped */
        guard->note = lctx__mailbox_register(guard->state->mailbox, guard->ctx, LCTX_KIND_ALARM, 0);
    if (guard->wire == NULL || (guard->counting && guard->note == NULL)) {
        leave(L, guard);
        bind_no_memory(L);
    }
    if (is_tripped(guard))
        guard_arm_state(guard->state); /* it ended just now, before the handler could have seen the wire */
}

static void unlink_guard(guard *left)
{
    lctx_state *state = left->state;
    if (state->guards == left) {
        state->guards = left->below;
    } else {
        guard *above = state->guards;
        while (above->below != left)
            above = above->below;
        above->below = left->below;
    }
    if (state->guards == NULL)
        interrupt_unwatch(state);
}

/* Nothing of the guard is left behind; harmless when repeated. */
static void leave(lua_State *L, guard *guard)
{
    if (!guard->entered)
        return;
    guard->entered = false;
    tripwire *wire = guard->wire;
    guard->wire = NULL; /* from here on it wants nothing */
    atomic_signal_fence(memory_order_seq_cst);
    unlink_guard(guard);
    disarm(guard->L, &guard->saved);
    if (guard->note) {
        lctx__mailbox_stop(guard->note);
        lctx__after_unref(guard->note);
        guard->note = NULL;
    }
    if (wire)
        guard_wire_take_down(guard->state, wire);
    if (guard->state->guards)
        guard_arm_state(guard->state); /* what an outer one wants was perhaps saved here */
    if (guard->id) {
        bind_push_table(L, TABLE_TRACES);
        lua_rawgeti(L, -1, guard->id); /* for who reports it */
        lua_pushnil(L);
        lua_rawseti(L, -3, guard->id);
        lua_remove(L, -2);
    } else {
        lua_pushnil(L);
    }
}

/* __close and __gc. What ctx:call reports is the stop, also if f has raised something else after it. */
static int guard_close(lua_State *L)
{
    guard *guard = lua_touserdata(L, 1);
    if (lua_type(L, 1) != LUA_TUSERDATA || lua_rawlen(L, 1) != sizeof *guard || guard->tag != &guard_tag)
        return 0;
    bool report = guard->entered && guard->raised && guard->is_call && !lua_isnoneornil(L, 2);
    leave(L, guard);
    if (!report)
        return 0;
    push_error(L, guard->ctx);
    return lua_error(L);
}

/* Pushes a guard for the context at 1, entered: index 2, below the function and its arguments. */
static guard *push_guard(lua_State *L, lctx *ctx, bool is_call)
{
    luaL_checkstack(L, 10, NULL);
    if (((lctx_state *)lua_touserdata(L, lua_upvalueindex(UP_STATE)))->mailbox == NULL)
        luaL_error(L, "the Lua state is being closed");
    guard *guard = lua_newuserdatauv(L, sizeof *guard, 1);
    memset(guard, 0, sizeof *guard);
    guard->tag = &guard_tag;
    guard->state = lua_touserdata(L, lua_upvalueindex(UP_STATE));
    guard->L = L;
    guard->ctx = ctx;
    guard->is_call = is_call;
    lua_getiuservalue(L, lua_upvalueindex(UP_STATE), TABLE_GUARD);
    lua_setmetatable(L, -2);
    if (lua_pushthread(L)) /* the main one lives as long as the state */
        lua_pop(L, 1);
    else
        lua_setiuservalue(L, -2, 1); /* the collector finds the guard of a dead coroutine while that is there */
    lua_insert(L, 2);
    if (is_call || lua_isyieldable(L)) /* else there is no way out but through finish_pcall */
        lua_toclose(L, 2);
    return guard;
}

/* An outer call was stopped while this inner one ran: that does not hold the error up. (One that is made later is
 * part of the cleaning up.) */
static void pass_on(lua_State *L, const guard *left)
{
    for (guard *guard = left->state->guards; guard; guard = guard->below)
        if (is_tripped(guard) && guard->raised && covers_running(guard) &&
            (guard->stop > left->stops_before || is_hard(guard))) {
            push_error(L, guard->ctx);
            lua_error(L);
        }
}

/* ---- pcall and call -----------------------------------------------------------------------------------------------
 */

static int finish_pcall(lua_State *L, int status, lua_KContext unused)
{
    guard *guard = lua_touserdata(L, 2);
    (void)unused;
    leave(L, guard); /* pushes the trace */
    pass_on(L, guard);
    if (guard->raised) {
        if (lua_isnil(L, -1)) /* there was no room for it */
            lua_pushliteral(L, "stack traceback:\n\t(not available)");
        lua_pushboolean(L, 0);
        push_error(L, guard->ctx);
        lua_pushvalue(L, -3);
        return 3;
    }
    lua_pop(L, 1);
    bool ok = status == LUA_OK || status == LUA_YIELD;
    lua_pushboolean(L, ok);
    lua_insert(L, ok ? 3 : -2);
    return ok ? lua_gettop(L) - 2 : 2;
}

/* ctx:pcall(f, ...) */
static int guarded_pcall(lua_State *L)
{
    lctx *ctx = bind_check_context_or_custom(L, 1)->ctx;
    luaL_checkany(L, 2);
    int arguments = lua_gettop(L) - 2;
    lctx_err_t err = lctx_err(ctx);
    if (err != LCTX_LIVE) {
        lua_pushboolean(L, 0);
        bind_push_err(L, err);
        return 2;
    }
    enter(L, push_guard(L, ctx, false));
    int status = lua_pcallk(L, arguments, LUA_MULTRET, 0, 0, finish_pcall);
    return finish_pcall(L, status, 0);
}

static int finish_call(lua_State *L, int status, lua_KContext unused)
{
    guard *guard = lua_touserdata(L, 2);
    (void)status;
    (void)unused;
    leave(L, guard);
    pass_on(L, guard);
    if (guard->raised) {
        push_error(L, guard->ctx);
        return lua_error(L);
    }
    lua_pop(L, 1);
    return lua_gettop(L) - 2;
}

/* ctx:call(f, ...): an error passes through, and the guard is closed on its way. */
static int guarded_call(lua_State *L)
{
    lctx *ctx = bind_check_context_or_custom(L, 1)->ctx;
    luaL_checkany(L, 2);
    int arguments = lua_gettop(L) - 2;
    lctx_err_t err = lctx_err(ctx);
    if (err != LCTX_LIVE) {
        bind_push_err(L, err);
        return lua_error(L);
    }
    enter(L, push_guard(L, ctx, true));
    lua_callk(L, arguments, LUA_MULTRET, 0, finish_call);
    return finish_call(L, LUA_OK, 0);
}

const luaL_Reg bind_guard_methods[] = {{"pcall", guarded_pcall}, {"call", guarded_call}, {NULL, NULL}};
const luaL_Reg bind_guard_metamethods[] = {{"__close", guard_close}, {"__gc", guard_close}, {NULL, NULL}};
