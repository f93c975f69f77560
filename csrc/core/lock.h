/* SPDX-License-Identifier: MIT
 *
 * lock.h - the short locks of the core.
 *
 * A lock is one byte that a thread spins on: every section under one is a few dozen instructions (but for the
 * timer thread's, when many deadlines fall into one tick), never allocates, never blocks and never calls out.
 * The tree uses a fixed array of them, the stripes: a context is guarded by the stripe that its address falls
 * on. That makes contexts small, and lets fork() close all of them at once.
 *
 * THE rule, on which freedom from deadlock rests: a thread holds at most one of these locks, and takes no
 * other kind of lock while it does. Only lctx__stripes_lock_all (for fork) takes several, in array order.
 */
#ifndef LCTX_LOCK_H
#define LCTX_LOCK_H

#include <stdatomic.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

typedef struct lctx_lock {
    _Atomic unsigned char held;
} lctx_lock;

void lctx__lock_contended(lctx_lock *lock);

static inline void lctx__lock(lctx_lock *lock)
{
    if (atomic_exchange_explicit(&lock->held, 1, memory_order_acquire))
        lctx__lock_contended(lock);
}

static inline void lctx__unlock(lctx_lock *lock)
{
    atomic_store_explicit(&lock->held, 0, memory_order_release);
}

/* Counters live in the stripes, since who changes one holds a stripe anyway; a sum over all stripes is the
 * figure, a single cell may be negative. */
typedef struct lctx_stripe {
    lctx_lock lock;
    long contexts, live, callbacks, waiters; /* under lock */
    char pad[64 - sizeof(long) * 5];         /* a cache line each */
} lctx_stripe;

enum { LCTX_STRIPES = 256 };
extern lctx_stripe lctx__stripes[LCTX_STRIPES];

static inline lctx_stripe *lctx__stripe_of(const void *address)
{
    uint64_t mixed = (uint64_t)(uintptr_t)address * UINT64_C(0x9E3779B97F4A7C15);
    return &lctx__stripes[mixed >> 56];
}

/* Takes the stripe that guards `address`, and returns it for lctx__stripe_unlock. */
static inline lctx_stripe *lctx__stripe_lock(const void *address)
{
    lctx_stripe *stripe = lctx__stripe_of(address);
    lctx__lock(&stripe->lock);
    return stripe;
}

static inline void lctx__stripe_unlock(lctx_stripe *stripe)
{
    lctx__unlock(&stripe->lock);
}

void lctx__stripes_lock_all(void);
void lctx__stripes_unlock_all(void);

#pragma GCC visibility pop
#endif
