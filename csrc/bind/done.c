/* SPDX-License-Identifier: MIT
 *
 * done.c - Done objects, and waiting on them: wait and select.
 *
 * One piece of code waits for all: the main coroutine blocks in the mailbox, a coroutine yields. A waitset
 * holds what is registered meanwhile, and is a to-be-closed value on the stack of the one who waits: whether
 * that is woken, gives up, fails or is closed, it is taken off everything.
 */
#include "bind.h"

#include <errno.h>
#include <math.h>

/* ---- Done --------------------------------------------------------------------------------------------------- */

typedef struct done_box {
    const void *tag;
    lctx_box *context; /* kept by the uservalue */
    lctx_notifier *notifier;
} done_box;

static const char done_tag;

static done_box *test_done(lua_State *L, int index)
{
    return bind_test_tagged(L, index, sizeof(done_box), &done_tag);
}

static done_box *check_done(lua_State *L, int arg)
{
    done_box *done = test_done(L, arg);
    if (done == NULL)
        luaL_typeerror(L, arg, "Done");
    return done;
}

void bind_push_done(lua_State *L, int index)
{
    lctx_box *box = bind_push_scope(L, index);
    if (box == NULL) {
        lua_pushnil(L);
        return;
    }
    if (lua_getiuservalue(L, -1, CONTEXT_DONE) == LUA_TNIL) {
        lua_pop(L, 1);
        done_box *done = lua_newuserdatauv(L, sizeof *done, 1);
        *done = (done_box){.tag = &done_tag, .context = box};
        lua_pushvalue(L, -2);
        lua_setiuservalue(L, -2, 1);
        bind_push_table(L, TABLE_DONE);
        lua_setmetatable(L, -2);
        lua_pushvalue(L, -1);
        lua_setiuservalue(L, -3, CONTEXT_DONE);
    }
    lua_remove(L, -2);
}

lctx_box *bind_push_context_of_done(lua_State *L, int index)
{
    done_box *done = test_done(L, index);
    if (done)
        lua_getiuservalue(L, index, 1);
    return done ? done->context : NULL;
}

static bool is_closed(const done_box *done)
{
    return lctx_err(done->context->ctx) != LCTX_LIVE;
}

static int closed(lua_State *L)
{
    lua_pushboolean(L, is_closed(check_done(L, 1)));
    return 1;
}

/* pollfd() and getfd(): readable when closed. */
static int fd(lua_State *L)
{
    done_box *done = check_done(L, 1);
    if (done->notifier == NULL)
        done->notifier = lctx_notifier_new(done->context->ctx);
    if (done->notifier == NULL)
        return luaL_fileresult(L, 0, NULL);
    lua_pushinteger(L, lctx_notifier_fd(done->notifier));
    return 1;
}

static int events(lua_State *L)
{
    check_done(L, 1);
    lua_pushliteral(L, "r");
    return 1;
}

/* Seconds until the deadline, for loops that wait by themselves. */
static int timeout(lua_State *L)
{
    double seconds = lctx_remaining(check_done(L, 1)->context->ctx);
    if (isinf(seconds))
        lua_pushnil(L);
    else
        lua_pushnumber(L, seconds);
    return 1;
}

static int done_gc(lua_State *L)
{
    done_box *done = test_done(L, 1);
    if (done) {
        lctx_notifier_free(done->notifier);
        done->notifier = NULL;
    }
    return 0;
}

/* ---- Waitsets ----------------------------------------------------------------------------------------------- */

typedef struct waitset {
    const void *tag;
    lctx_state *state;
    lua_Integer id;
    lctx_ns until;
    lctx *alarm;    /* ends at `until`; for who waits in a loop */
    bool in_loop;   /* entered in WAITS or OWNED_WAITS */
    bool is_owned;  /* the coroutine is one that a loop keeps, and that only this loop resumes */
    bool is_due;    /* and was to be woken when no loop was attached */
    int arguments;  /* on the stack of the one who waits: Dones, nils and a number */
    int registered; /* notes */
    lctx_after *notes[];
} waitset;

enum { WAITSET_THREAD = 1, WAITSET_LOOP /* if is_owned */ };

static const char waitset_tag;

static void drop_notes(waitset *set)
{
    while (set->registered > 0) {
        lctx_after *note = set->notes[--set->registered];
        lctx__mailbox_stop(note);
        lctx__after_unref(note);
    }
    lctx_unref(set->alarm);
    set->alarm = NULL;
}

static enum table table_of(const waitset *set)
{
    return set->is_owned ? TABLE_OWNED_WAITS : TABLE_WAITS;
}

static void clear_waitset(lua_State *L, waitset *set)
{
    drop_notes(set);
    if (set->in_loop) {
        bind_push_table(L, table_of(set));
        lua_pushnil(L);
        lua_rawseti(L, -2, set->id);
        lua_pop(L, 1);
        set->in_loop = false;
        set->state->waiting--;
    }
}

/* __close and __gc */
static int waitset_close(lua_State *L)
{
    waitset *set = lua_touserdata(L, 1);
    if (lua_type(L, 1) == LUA_TUSERDATA && lua_rawlen(L, 1) >= sizeof *set && set->tag == &waitset_tag)
        clear_waitset(L, set);
    return 0;
}

static waitset *push_waitset(lua_State *L, lctx_state *state, int arguments, lctx_ns until)
{
    waitset *set = lua_newuserdatauv(L, sizeof *set + sizeof(lctx_after *) * ((size_t)arguments + 1), WAITSET_LOOP);
    *set = (waitset){.tag = &waitset_tag, .state = state, .arguments = arguments, .until = until};
    bind_push_table(L, TABLE_WAITSET);
    lua_setmetatable(L, -2);
    lua_toclose(L, -1);
    return set;
}

static void add_note(lua_State *L, waitset *set, lctx *ctx, lctx_kind kind)
{
    lctx_after *note = lctx__mailbox_register(set->state->mailbox, ctx, kind, (intptr_t)set->id);
    if (note == NULL)
        bind_no_memory(L);
    set->notes[set->registered++] = note;
}

/* Has everything that is waited on posted to the mailbox, under a new id. */
static void register_waitset(lua_State *L, waitset *set)
{
    clear_waitset(L, set);
    set->is_due = false;
    set->id = ++set->state->last_id;
    for (int i = 1; i <= set->arguments; i++)
        if (test_done(L, i))
            add_note(L, set, test_done(L, i)->context->ctx, LCTX_KIND_WAITER);
}

/* And the loop resumes this coroutine then. The waitset is at `index`. */
static void register_with_loop(lua_State *L, waitset *set, int index)
{
    register_waitset(L, set);
    if (set->until != LCTX_NEVER) {
        double left = lctx__seconds(set->until - lctx__monotonic());
        set->alarm = lctx_with_timeout(lctx_background(), left, NULL);
        if (set->alarm == NULL)
            bind_no_memory(L);
        add_note(L, set, set->alarm, LCTX_KIND_ALARM);
    }
    lua_pushthread(L);
    lua_setiuservalue(L, index, WAITSET_THREAD);
    bind_push_table(L, table_of(set));
    lua_pushvalue(L, index);
    lua_rawseti(L, -2, set->id);
    lua_pop(L, 1);
    set->in_loop = true;
    set->state->waiting++;
}

static waitset *push_registered(lua_State *L, lua_Integer id)
{
    bind_push_table(L, TABLE_WAITS);
    if (lua_rawgeti(L, -1, id) == LUA_TNIL) {
        lua_pop(L, 2);
        bind_push_table(L, TABLE_OWNED_WAITS);
        lua_rawgeti(L, -1, id);
    }
    lua_remove(L, -2);
    return lua_touserdata(L, -1);
}

/* Hands the coroutine to the loop at the top. One that the loop could not take stays entered, for the next attach.
 * Meanwhile it is not counted as waiting: it may be resumed at once, and wait anew. */
static void hand_over(lua_State *L, waitset *set, int index)
{
    lua_Integer id = set->id;
    enum table table = table_of(set);
    drop_notes(set);
    set->in_loop = false;
    set->state->waiting--;
    lua_getfield(L, -1, "resume");
    lua_getiuservalue(L, index, WAITSET_THREAD);
    if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
        if (!set->in_loop) {
            set->in_loop = set->is_due = true;
            set->state->waiting++;
        }
        lua_error(L);
    }
    bind_push_table(L, table);
    lua_pushnil(L);
    lua_rawseti(L, -2, id);
}

/* A coroutine that a loop owns is resumed by that, any other by whichever is attached. */
int bind_wake(lua_State *L, lua_Integer id)
{
    int top = lua_gettop(L);
    waitset *set = push_registered(L, id);
    bool is_due = set && !set->is_owned && !set->state->attached;
    if (is_due) {
        set->is_due = true;
        drop_notes(set);
    }
    if (set == NULL || is_due) {
        lua_settop(L, top);
        return 0;
    }
    if (set->is_owned)
        lua_getiuservalue(L, top + 1, WAITSET_LOOP);
    else
        bind_push_table(L, TABLE_LOOP);
    hand_over(L, set, top + 1);
    lua_settop(L, top);
    return 1;
}

void bind_wake_left_over(lua_State *L)
{
    bind_push_table(L, TABLE_WAITS);
    lua_newtable(L);
    lua_Integer count = 0;
    for (lua_pushnil(L); lua_next(L, -3); lua_pop(L, 1))
        if (((waitset *)lua_touserdata(L, -1))->is_due) {
            lua_pushvalue(L, -2);
            lua_rawseti(L, -4, ++count);
        }
    for (lua_Integer i = 1; i <= count; i++) {
        lua_rawgeti(L, -1, i);
        bind_wake(L, lua_tointeger(L, -1));
        lua_pop(L, 1);
    }
    lua_pop(L, 2);
}

/* ---- Waiting ------------------------------------------------------------------------------------------------ */

enum mode { WAIT, SELECT };

/* The index of the first argument that is ready: a closed Done, or the number when the time is up; else 0. */
static int find_ready(lua_State *L, int arguments, lctx_ns until)
{
    bool time_is_up = until <= lctx__monotonic();
    for (int i = 1; i <= arguments; i++) {
        const done_box *done = test_done(L, i);
        if (done ? is_closed(done) : time_is_up && !lua_isnil(L, i))
            return i;
    }
    return 0;
}

static int finish(lua_State *L, enum mode mode, int ready)
{
    if (mode == WAIT)
        lua_pushboolean(L, ready == 1);
    else
        lua_pushvalue(L, ready);
    return 1;
}

/* Yields what is waited on: the Dones, then the seconds that are left. */
static int yield_waits(lua_State *L, waitset *set, enum mode mode, lua_KFunction resumed)
{
    int count = 0;
    luaL_checkstack(L, set->arguments + 4, "too many arguments");
    for (int i = 1; i <= set->arguments; i++)
        if (test_done(L, i)) {
            lua_pushvalue(L, i);
            count++;
        }
    if (set->until != LCTX_NEVER) {
        lua_pushnumber(L, lctx__seconds(set->until - lctx__monotonic()));
        count++;
    }
    return lua_yieldk(L, count, (lua_KContext)set->arguments << 1 | mode, resumed);
}

static int resumed(lua_State *L, int status, lua_KContext context);

/* Asks the attached loop how this coroutine is suspended: pushes a function and its argument, and returns true, if in
 * a way of the loop's own. */
static bool push_suspension(lua_State *L)
{
    int top = lua_gettop(L);
    bind_push_table(L, TABLE_LOOP);
    if (lua_getfield(L, -1, "park") != LUA_TNIL) {
        lua_pushthread(L);
        lua_call(L, 1, 2);
        lua_remove(L, top + 1);
        if (!lua_isnil(L, -2))
            return true;
    }
    lua_settop(L, top);
    return false;
}

/* Yields in a coroutine that the attached loop will resume. */
static int yield_to_loop(lua_State *L, waitset *set, lua_KContext context)
{
    int index = lua_gettop(L);
    bool is_owned = push_suspension(L);
    if (is_owned && !set->in_loop) {
        bind_push_table(L, TABLE_LOOP);
        lua_setiuservalue(L, index, WAITSET_LOOP);
    }
    if (!set->in_loop) {
        set->is_owned = is_owned;
        register_with_loop(L, set, index);
    }
    if (is_owned) {
        lua_callk(L, 1, 0, context, resumed);
        return resumed(L, LUA_YIELD, context);
    }
    set->state->parked = L;
    return yield_waits(L, set, context & 1 ? SELECT : WAIT, resumed);
}

/* In a coroutine, at first and whenever it is resumed. The waitset lies above the arguments; what a resumer has
 * passed, above that. */
static int resumed(lua_State *L, int status, lua_KContext context)
{
    enum mode mode = context & 1 ? SELECT : WAIT;
    (void)status;
    lua_settop(L, (int)(context >> 1) + 1);
    waitset *set = lua_touserdata(L, -1);
    int ready = find_ready(L, set->arguments, set->until);
    if (ready)
        return finish(L, mode, ready);
    if (set->state->attached)
        return yield_to_loop(L, set, context);
    return yield_waits(L, set, mode, resumed);
}

/* In the main coroutine, or where a C function in between forbids to yield. A wait inside a callback runs what
 * lies behind that callback: it may be what is waited for. */
static int block(lua_State *L, waitset *set, enum mode mode)
{
    lctx_state *state = set->state;
    bool in_callback = state->dispatching;
    int ready;
    register_waitset(L, set);
    state->dispatching = false;
    while (bind_dispatch(L, state), !(ready = find_ready(L, set->arguments, set->until)))
        bind_block(L, state, set->until);
    state->dispatching = in_callback;
    bind_put_back(state);
    return finish(L, mode, ready);
}

static int wait_for(lua_State *L, enum mode mode, lctx_ns until)
{
    int arguments = lua_gettop(L), ready = find_ready(L, arguments, until);
    if (ready)
        return finish(L, mode, ready);
    lctx_state *state = lua_touserdata(L, lua_upvalueindex(UP_STATE));
    if (state->mailbox == NULL)
        return luaL_error(L, "the Lua state is being closed");
    luaL_checkstack(L, 8, NULL);
    waitset *set = push_waitset(L, state, arguments, until);
    if (!lua_isyieldable(L))
        return block(L, set, mode);
    return resumed(L, LUA_YIELD, (lua_KContext)arguments << 1 | mode);
}

/* done:wait([seconds]) */
static int done_wait(lua_State *L)
{
    check_done(L, 1);
    double seconds = bind_opt_seconds(L, 2);
    lua_settop(L, 2);
    return wait_for(L, WAIT, lctx__instant(seconds));
}

/* select(x, ...) */
static int select_first(lua_State *L)
{
    double seconds = INFINITY;
    int dones = 0, numbers = 0;
    for (int i = 1; i <= lua_gettop(L); i++) {
        if (test_done(L, i)) {
            dones++;
        } else if (lua_type(L, i) == LUA_TNUMBER) {
            luaL_argcheck(L, ++numbers == 1, i, "only one number of seconds can be given");
            seconds = bind_opt_seconds(L, i);
        } else if (!lua_isnil(L, i)) {
            return luaL_typeerror(L, i, bind_test_context(L, i) ? "its Done, as ctx:done()" : "Done, number or nil");
        }
    }
    if (dones == 0 && numbers == 0)
        return luaL_error(L, "nothing to wait for");
    return wait_for(L, SELECT, lctx__instant(seconds));
}

/* ---- Registration ------------------------------------------------------------------------------------------- */

const luaL_Reg bind_done_methods[] = {{"wait", done_wait}, {"closed", closed},   {"pollfd", fd},    {"getfd", fd},
                                      {"events", events},  {"timeout", timeout}, {"dirty", closed}, {NULL, NULL}};
const luaL_Reg bind_done_metamethods[] = {{"__gc", done_gc}, {NULL, NULL}};
const luaL_Reg bind_waitset_metamethods[] = {{"__close", waitset_close}, {"__gc", waitset_close}, {NULL, NULL}};
const luaL_Reg bind_done_functions[] = {{"select", select_first}, {NULL, NULL}};
