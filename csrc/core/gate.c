/* SPDX-License-Identifier: MIT */
#include "gate.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

#include "bell.h"
#include "key.h"
#include "lock.h"
#include "mailbox.h"
#include "park.h"
#include "share.h"
#include "timer.h"

/* How many are inside, times two; the low bit says that the gate is closed. */
static _Atomic unsigned gate;

static void nap(void)
{
    const struct timespec time = {0, 50000};
    nanosleep(&time, NULL);
}

void lctx__gate_enter(void)
{
    while (atomic_fetch_add_explicit(&gate, 2, memory_order_acquire) & 1) {
        atomic_fetch_sub_explicit(&gate, 2, memory_order_release);
        nap();
    }
}

void lctx__gate_leave(void)
{
    atomic_fetch_sub_explicit(&gate, 2, memory_order_release);
}

/* Parts are counted in one of two cells, by the epoch in which they began. Who settles begins a new epoch and
 * waits for the old one's cell; if a part has come upon yet another walk meanwhile, which may have begun later,
 * once more. */
static _Atomic unsigned epoch;
static _Atomic unsigned parts[2];
static _Atomic unsigned tangles;                             /* parts that have come upon another walk */
static pthread_mutex_t settling = PTHREAD_MUTEX_INITIALIZER; /* inside the gate only, so never held at a fork */

unsigned lctx__part_begin(void)
{
    for (;;) {
        unsigned now = atomic_load(&epoch);
        atomic_fetch_add(&parts[now & 1], 1);
        if (atomic_load(&epoch) == now)
            return now & 1;
        atomic_fetch_sub(&parts[now & 1], 1);
    }
}

void lctx__part_end(unsigned part, bool tangled)
{
    if (tangled)
        atomic_fetch_add(&tangles, 1);
    atomic_fetch_sub(&parts[part], 1);
}

static void settle_epoch(void)
{
    unsigned old = atomic_fetch_add(&epoch, 1) & 1;
    for (int spins = 0; atomic_load(&parts[old]) != 0; spins++)
        if (spins > 1000)
            nap();
}

void lctx__settle(void)
{
    unsigned seen;
    pthread_mutex_lock(&settling);
    do {
        seen = atomic_load(&tangles);
        settle_epoch();
    } while (atomic_load(&tangles) != seen);
    pthread_mutex_unlock(&settling);
}

/* Two threads may fork at once: the second waits until the first has opened the gate again. */
static void close_gate(void)
{
    while (atomic_fetch_or_explicit(&gate, 1, memory_order_acquire) & 1)
        nap();
    while (atomic_load_explicit(&gate, memory_order_acquire) != 1)
        nap();
}

static void open_gate(void)
{
    atomic_fetch_and_explicit(&gate, ~1u, memory_order_release);
}

static void before_fork(void)
{
    close_gate();
    lctx__mailboxes_before_fork();
    lctx__bells_before_fork();
    lctx__keys_before_fork();
    lctx__shares_before_fork();
    lctx__park_before_fork();
    lctx__timers_before_fork();
    lctx__stripes_lock_all();
}

static void after_fork(bool child)
{
    lctx__stripes_unlock_all();
    lctx__timers_after_fork(child);
    lctx__park_after_fork(child);
    lctx__shares_after_fork();
    lctx__keys_after_fork();
    lctx__bells_after_fork(child);
    lctx__mailboxes_after_fork(child);
    open_gate();
}

static void after_fork_in_parent(void)
{
    after_fork(false);
}

/* In the child nobody else is left, and one that was napping at the gate may have been counted. */
static void after_fork_in_child(void)
{
    atomic_store_explicit(&gate, 1, memory_order_relaxed);
    after_fork(true);
}

__attribute__((constructor)) static void install(void)
{
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}
