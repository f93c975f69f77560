/* SPDX-License-Identifier: MIT
 *
 * guard.h - stopping scripts: what guard.c (the calls and the hook), wire.c (what other threads do), coroutine.c
 * (which coroutine runs), own.c (what it must not tear apart) and interrupt.c (the signal) share.
 *
 * A guard is one ctx:pcall or ctx:call that has been entered and not left. Nothing is set in Lua until its
 * context ends. Then whichever thread ends it *trips* the guard: it sends a signal to the guard's thread, and
 * the handler there arms a hook on every coroutine that may be running. The hook raises.
 *
 * Guards and frames of a state are used by its own thread alone, and by the signal handler that interrupts it:
 * they are linked with single stores, after what they point to is complete. Only the tripwire of a guard is
 * seen by other threads.
 */
#ifndef LCTX_GUARD_H
#define LCTX_GUARD_H

#include <pthread.h>
#include <stdatomic.h>

#include "bind.h"

#pragma GCC visibility push(hidden)

/* The hook that a coroutine had before it was armed. */
typedef struct saved_hook {
    lua_Hook hook;
    int mask, count;
    bool armed;
} saved_hook;

/* What other threads see of a guard. */
typedef struct tripwire {
    lctx_refs refs; /* the guard's, and one for each callback that is registered */
    pthread_mutex_t mutex;
    bool set;             /* mutex: the guard has not been left */
    pthread_t thread;     /* r/o while it is up */
    int signal;           /* r/o while it is up; 0: count mode */
    lctx_ns hard_at;      /* mutex: when the grace ends */
    lctx *alarm;          /* mutex: the next look at a script that goes on */
    lctx_after *on_end;   /* the guard's */
    lctx_after *on_alarm; /* mutex */
    _Atomic bool tripped; /* the context has ended */
    _Atomic bool hard;    /* and the grace is over */
    _Atomic bool quiet;   /* its coroutine does not run: no alarms until the hook is reached */
} tripwire;

typedef struct guard {
    const void *tag;
    lctx_state *state;
    struct guard *below; /* the guard of this state that was entered before */
    lua_State *L;        /* the coroutine of the call */
    lctx *ctx;
    tripwire *wire;        /* NULL: left */
    saved_hook saved;      /* of L */
    bool is_call;          /* ctx:call, not ctx:pcall */
    bool entered;          /* and not left */
    bool raised;           /* the script has had its error */
    unsigned stop;         /* state->stops when it was raised */
    unsigned stops_before; /* state->stops when it was entered */
    lctx_after *note;      /* in count mode: ends what blocks in the mailbox */
    int counting;          /* in count mode: how many instructions from look to look; 0: signal mode */
    lua_Integer id;        /* of its traceback in TABLE_TRACES; 0: none */
} guard;

/* A coroutine that the drop-in functions are running. */
typedef struct lctx_frame {
    lua_State *co, *from;
    bool closing; /* its pending variables are being closed */
    struct lctx_frame *below;
    saved_hook saved; /* of co */
} frame;

/* ---- wire.c ---- */

/* NULL when memory is out. If ctx has ended meanwhile the wire is tripped at once. signal 0: none is sent. */
tripwire *guard_wire_put_up(lctx_state *state, lctx *ctx, int signal);
void guard_wire_take_down(lctx_state *state, tripwire *wire);

/* The script has its first error now: the grace begins, with alarms. */
void guard_wire_begin_grace(tripwire *wire);

/* ---- guard.c ---- */

/* Arms what may be running in this state, if a guard of it wants that. Called by the signal handler. */
void guard_arm_state(lctx_state *state);

/* Whether co has yielded because a hook wants it dead (guard.c says why): it is to be closed, and to have failed
 * with the error that this pushes onto the stack of `to`. */
bool guard_was_killed(lctx_state *state, lua_State *co);
void guard_push_stop(lua_State *to, lctx_state *state);

/* The function, which is in C, catches errors of what it calls. */
void guard_add_catcher(lua_CFunction function);

/* A coroutine is about to be run, or has stopped running, in this frame. */
void guard_enter_frame(lctx_state *state, frame *frame);
void guard_leave_frame(lctx_state *state, frame *frame, bool failed);

/* ---- own.c ---- */

/* In a hook: whether the function that runs is one that a stop waits for. */
bool guard_is_in_own_code(lua_State *L, lua_Debug *info);

/* ---- interrupt.c ---- */

typedef struct interrupt_settings {
    bool by_signal;
    int signal, count;
    double grace;
} interrupt_settings;

interrupt_settings interrupt_get(void);

/* Makes sure that the handler is installed and that this thread takes the signal, and that the handler knows of
 * the state. Cheap when that is so already. */
void interrupt_watch(lctx_state *state);
void interrupt_unwatch(lctx_state *state);

/* Sends the signal to a thread. Any thread. */
void interrupt_send(pthread_t thread, int number);

#pragma GCC visibility pop
#endif
