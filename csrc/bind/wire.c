/* SPDX-License-Identifier: MIT
 *
 * wire.c - the tripwire of a guard: what the thread that ends a context does to stop a script in another one.
 */
#include "guard.h"

#include <stdlib.h>
#include <string.h>

#include "../core/after.h"

/* How often a script that has been tripped and goes on is sent the signal again. */
#define ALARM_SECONDS 0.02

static void wire_unref(tripwire *wire)
{
    if (!lctx__refs_drop(&wire->refs))
        return;
    pthread_mutex_destroy(&wire->mutex);
    free(wire);
}

static void on_alarm(lctx_after *after, void *arg);

/* Without an alarm the grace is over at once: a script must not go on for ever. */
static bool set_alarm(tripwire *wire)
{
    lctx *alarm = lctx_with_timeout(lctx_background(), ALARM_SECONDS, NULL);
    lctx_after *after = alarm ? lctx__after_new(LCTX_KIND_ALARM, on_alarm, wire, true) : NULL;
    if (after) {
        lctx__refs_take(&wire->refs);
        wire->alarm = alarm;
        wire->on_alarm = after;
        if (lctx__after_link(after, alarm))
            return true;
        wire->alarm = NULL; /* this thread was held up, and the alarm has gone off already */
        lctx__refs_drop(&wire->refs);
        lctx__after_unref(after);
        lctx__after_unref(after);
    }
    lctx_unref(alarm);
    return false;
}

/* Under wire->mutex; also again and again, until the guard is left. */
static void trip(tripwire *wire)
{
    if (!atomic_load_explicit(&wire->tripped, memory_order_relaxed)) {
        wire->hard_at = lctx__instant(interrupt_get().grace);
        atomic_store_explicit(&wire->tripped, true, memory_order_release);
    } else if (lctx__monotonic() >= wire->hard_at) {
        atomic_store_explicit(&wire->hard, true, memory_order_release);
    }
    atomic_store_explicit(&wire->quiet, false, memory_order_relaxed);
    if (!set_alarm(wire) && !set_alarm(wire))
        atomic_store_explicit(&wire->hard, true, memory_order_release);
    if (wire->signal)
        interrupt_send(wire->thread, wire->signal);
}

void guard_wire_begin_grace(tripwire *wire)
{
    pthread_mutex_lock(&wire->mutex);
    wire->hard_at = lctx__instant(interrupt_get().grace);
    atomic_store_explicit(&wire->quiet, false, memory_order_relaxed);
    if (wire->alarm == NULL && !set_alarm(wire) && !set_alarm(wire))
        atomic_store_explicit(&wire->hard, true, memory_order_release);
    pthread_mutex_unlock(&wire->mutex);
}

static void on_end(lctx_after *after, void *arg)
{
    tripwire *wire = arg;
    pthread_mutex_lock(&wire->mutex);
    if (wire->set)
        trip(wire);
    pthread_mutex_unlock(&wire->mutex);
    wire_unref(wire);
    lctx__after_unref(after);
}

static void on_alarm(lctx_after *after, void *arg)
{
    tripwire *wire = arg;
    lctx *alarm = NULL;
    pthread_mutex_lock(&wire->mutex);
    if (wire->set) {
        alarm = wire->alarm;
        lctx__after_unref(wire->on_alarm);
        wire->alarm = NULL;
        if (!atomic_load_explicit(&wire->quiet, memory_order_relaxed))
            trip(wire);
    }
    pthread_mutex_unlock(&wire->mutex);
    lctx_unref(alarm);
    wire_unref(wire);
    lctx__after_unref(after);
}

static void drop_callback(tripwire *wire, lctx_after *after)
{
    if (lctx__after_stop(after))
        wire_unref(wire);
    lctx__after_unref(after);
}

/* One wire that nobody else refers to is kept for the next guard of the state. */
static void wire_put_aside(lctx_state *state, tripwire *wire)
{
    bool alone = atomic_load_explicit(&wire->refs, memory_order_acquire) == 1;
    if (alone && state->spare_wire == NULL && state->mailbox)
        state->spare_wire = wire;
    else
        wire_unref(wire);
}

void guard_free_spare(lctx_state *state)
{
    if (state->spare_wire)
        wire_unref(state->spare_wire);
    state->spare_wire = NULL;
}

void guard_wire_take_down(lctx_state *state, tripwire *wire)
{
    pthread_mutex_lock(&wire->mutex);
    wire->set = false;
    lctx *alarm = wire->alarm;
    pthread_mutex_unlock(&wire->mutex);
    drop_callback(wire, wire->on_end);
    if (alarm) {
        drop_callback(wire, wire->on_alarm);
        lctx_unref(alarm);
    }
    wire_put_aside(state, wire);
}

static tripwire *new_wire(void)
{
    tripwire *wire = malloc(sizeof *wire);
    if (wire == NULL)
        return NULL;
    memset(wire, 0, sizeof *wire);
    pthread_mutex_init(&wire->mutex, NULL);
    return wire;
}

tripwire *guard_wire_put_up(lctx_state *state, lctx *ctx, int signal)
{
    tripwire *wire = state->spare_wire ? state->spare_wire : new_wire();
    state->spare_wire = NULL;
    if (wire == NULL)
        return NULL;
    atomic_store_explicit(&wire->refs, 1, memory_order_relaxed);
    lctx_after *after = lctx__after_new(LCTX_KIND_ALARM, on_end, wire, true);
    if (after == NULL) {
        wire_unref(wire);
        return NULL;
    }
    atomic_store_explicit(&wire->refs, 2, memory_order_relaxed);
    atomic_store_explicit(&wire->tripped, false, memory_order_relaxed);
    atomic_store_explicit(&wire->hard, false, memory_order_relaxed);
    wire->set = true;
    wire->thread = pthread_self();
    wire->signal = signal;
    wire->on_end = after;
    wire->alarm = NULL;
    if (!lctx__after_link(after, ctx))
        on_end(after, wire);
    return wire;
}
