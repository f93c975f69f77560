/* SPDX-License-Identifier: MIT
 *
 * interrupt.c - the signal that makes a script notice, and the settings of all this.
 *
 * The signal means nothing by itself: it may come for other reasons (SIGURG: urgent data on a socket), and then
 * the handler finds no guard that wants anything. It always goes on to the handler that was there before.
 */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include "guard.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <string.h>

#include "../core/pin.h"

/* The states with guards on this thread, linked through state->next_watched. Volatile, since the handler reads
 * it; touched by interrupt_watch first, so that the handler never is the one to make room for it. */
static _Thread_local lctx_state *volatile watched;
static _Thread_local int unblocked; /* the signal that this thread is known to take */

enum { SIGNALS = 128 };

static struct {
    pthread_mutex_t mutex;
    _Atomic bool by_signal;
    _Atomic int signal, count;
    _Atomic double grace;
    _Atomic int installed;              /* the signal whose handler is installed; 0: none */
    struct sigaction previous[SIGNALS]; /* by number; written under mutex before the handler is installed */
} settings = {.mutex = PTHREAD_MUTEX_INITIALIZER, .by_signal = true, .signal = SIGURG, .count = 1000, .grace = 0.1};

static void chain(int number, siginfo_t *info, void *context)
{
    const struct sigaction *previous = &settings.previous[number];
    if (previous->sa_flags & SA_SIGINFO)
        previous->sa_sigaction(number, info, context);
    else if (previous->sa_handler != SIG_DFL && previous->sa_handler != SIG_IGN)
        previous->sa_handler(number);
}

static void handle(int number, siginfo_t *info, void *context)
{
    int error = errno;
    for (lctx_state *state = watched; state; state = state->next_watched)
        guard_arm_state(state);
    chain(number, info, context);
    errno = error;
}

/* No SA_RESTART: a system call that blocks is to give up. */
static void install(void)
{
    pthread_mutex_lock(&settings.mutex);
    int number = atomic_load(&settings.signal);
    struct sigaction action, current;
    lctx__pin_library();
    sigaction(number, NULL, &current);
    if (!(current.sa_flags & SA_SIGINFO) || current.sa_sigaction != handle) {
        memset(&action, 0, sizeof action);
        action.sa_flags = SA_SIGINFO;
        action.sa_sigaction = handle;
        sigemptyset(&action.sa_mask);
        settings.previous[number] = current;
        sigaction(number, &action, NULL);
    }
    atomic_store(&settings.installed, number);
    pthread_mutex_unlock(&settings.mutex);
}

static void unblock(int number)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, number);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    unblocked = number;
}

void interrupt_watch(lctx_state *state)
{
    int number = atomic_load_explicit(&settings.signal, memory_order_relaxed);
    if (atomic_load_explicit(&settings.by_signal, memory_order_relaxed)) {
        if (atomic_load_explicit(&settings.installed, memory_order_acquire) != number)
            install();
        if (unblocked != number)
            unblock(number);
    }
    if (state->watched)
        return;
    state->watched = true;
    state->next_watched = watched;
    atomic_signal_fence(memory_order_seq_cst);
    watched = state;
}

void interrupt_unwatch(lctx_state *state)
{
    if (!state->watched)
        return;
    state->watched = false;
    if (watched == state) {
        watched = state->next_watched;
        return;
    }
    for (lctx_state *other = watched; other; other = other->next_watched)
        if (other->next_watched == state)
            other->next_watched = state->next_watched;
}

void interrupt_send(pthread_t thread, int number)
{
    pthread_kill(thread, number);
}

interrupt_settings interrupt_get(void)
{
    return (interrupt_settings){.by_signal = atomic_load_explicit(&settings.by_signal, memory_order_relaxed),
                                .signal = atomic_load_explicit(&settings.signal, memory_order_relaxed),
                                .count = atomic_load_explicit(&settings.count, memory_order_relaxed),
                                .grace = atomic_load_explicit(&settings.grace, memory_order_relaxed)};
}

/* ---- interrupt([options]) ----------------------------------------------------------------------------------- */

static bool can_be_caught(int number)
{
    struct sigaction current;
    return number > 0 && number != SIGKILL && number != SIGSTOP && sigaction(number, NULL, &current) == 0;
}

static void read_options(lua_State *L, interrupt_settings *wanted)
{
    static const char *const modes[] = {"signal", "count", NULL};
    lua_getfield(L, 1, "mode");
    if (!lua_isnil(L, -1)) {
        const char *mode = lua_tostring(L, -1);
        luaL_argcheck(L, mode && (strcmp(mode, modes[0]) == 0 || strcmp(mode, modes[1]) == 0), 1,
                      "mode must be \"signal\" or \"count\"");
        wanted->by_signal = strcmp(mode, modes[0]) == 0;
    }
    lua_getfield(L, 1, "signal");
    if (!lua_isnil(L, -1)) {
        lua_Integer number = lua_tointeger(L, -1);
        luaL_argcheck(L, lua_isinteger(L, -1) && number < SIGNALS && can_be_caught((int)number), 1,
                      "signal must be the number of a signal that can be caught");
        wanted->signal = (int)number;
    }
    lua_getfield(L, 1, "count");
    if (!lua_isnil(L, -1)) {
        lua_Integer count = lua_tointeger(L, -1);
        luaL_argcheck(L, lua_isinteger(L, -1) && count >= 1 && count <= 1000000000, 1,
                      "count must be a positive integer");
        wanted->count = (int)count;
    }
    lua_getfield(L, 1, "grace");
    if (!lua_isnil(L, -1)) {
        double grace = lua_tonumber(L, -1);
        luaL_argcheck(L, lua_type(L, -1) == LUA_TNUMBER && grace >= 0, 1, "grace must be seconds, not negative");
        wanted->grace = grace;
    }
    lua_pop(L, 4);
}

static int interrupt(lua_State *L)
{
    interrupt_settings wanted = interrupt_get();
    if (!lua_isnoneornil(L, 1)) {
        luaL_checktype(L, 1, LUA_TTABLE);
        read_options(L, &wanted);
        atomic_store(&settings.signal, wanted.signal);
        atomic_store(&settings.count, wanted.count);
        atomic_store(&settings.grace, wanted.grace);
        atomic_store(&settings.by_signal, wanted.by_signal);
        if (wanted.by_signal)
            install();
    }
    lua_createtable(L, 0, 4);
    lua_pushstring(L, wanted.by_signal ? "signal" : "count");
    lua_setfield(L, -2, "mode");
    lua_pushinteger(L, wanted.signal);
    lua_setfield(L, -2, "signal");
    lua_pushinteger(L, wanted.count);
    lua_setfield(L, -2, "count");
    lua_pushnumber(L, wanted.grace);
    lua_setfield(L, -2, "grace");
    return 1;
}

const luaL_Reg bind_interrupt_functions[] = {{"interrupt", interrupt}, {NULL, NULL}};
