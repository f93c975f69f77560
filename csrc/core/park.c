/* SPDX-License-Identifier: MIT */
#include "park.h"

#include <pthread.h>

enum { PAIRS = 16 };

static struct pair {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
} pairs[PAIRS];
static pthread_once_t pairs_made = PTHREAD_ONCE_INIT;

static void make_pairs(void)
{
    for (int i = 0; i < PAIRS; i++) {
        pthread_mutex_init(&pairs[i].mutex, NULL);
        lctx__cond_init(&pairs[i].changed);
    }
}

static struct pair *pair_of(const lctx_scope *scope)
{
    pthread_once(&pairs_made, make_pairs);
    return &pairs[(uintptr_t)scope / 64 % PAIRS];
}

typedef bool changed(const lctx_scope *scope);

static bool has_ended(const lctx_scope *scope)
{
    return lctx__state(scope) != LCTX_LIVE;
}

static bool is_idle(const lctx_scope *scope)
{
    return !(atomic_load_explicit(&scope->ctx.head.state, memory_order_acquire) & LCTX_STATE_BUSY);
}

static bool announce(lctx_scope *scope, changed *changed)
{
    lctx_stripe *stripe = lctx__stripe_lock(scope);
    bool sleep = !changed(scope);
    if (sleep)
        atomic_store_explicit(&scope->ctx.head.parked, 1, memory_order_relaxed);
    lctx__stripe_unlock(stripe);
    return sleep;
}

static bool park(lctx_scope *scope, changed *changed, lctx_ns until)
{
    if (!announce(scope, changed))
        return true;
    struct pair *pair = pair_of(scope);
    struct timespec time = lctx__timespec(until > 0 ? until : 0);
    pthread_mutex_lock(&pair->mutex);
    while (!changed(scope) && lctx__monotonic() < until) {
        if (until == LCTX_NEVER)
            pthread_cond_wait(&pair->changed, &pair->mutex);
        else
            pthread_cond_timedwait(&pair->changed, &pair->mutex, &time);
    }
    pthread_mutex_unlock(&pair->mutex);
    return changed(scope);
}

bool lctx__park_until_ended(lctx_scope *scope, lctx_ns until)
{
    return park(scope, has_ended, until);
}

void lctx__park_while_busy(lctx_scope *scope)
{
    park(scope, is_idle, LCTX_NEVER);
}

void lctx__park_wake(const lctx_scope *scope)
{
    struct pair *pair = pair_of(scope);
    pthread_mutex_lock(&pair->mutex);
    pthread_cond_broadcast(&pair->changed);
    pthread_mutex_unlock(&pair->mutex);
}

void lctx__park_before_fork(void)
{
    pthread_once(&pairs_made, make_pairs);
    for (int i = 0; i < PAIRS; i++)
        pthread_mutex_lock(&pairs[i].mutex);
}

/* In the child the sleepers are gone: the conditions are made anew, to forget them. */
void lctx__park_after_fork(bool child)
{
    for (int i = 0; i < PAIRS; i++) {
        if (child)
            lctx__cond_init(&pairs[i].changed);
        pthread_mutex_unlock(&pairs[i].mutex);
    }
}
