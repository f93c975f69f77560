/* SPDX-License-Identifier: MIT */
#include "lock.h"

#include <time.h>

_Alignas(64) lctx_stripe lctx__stripes[LCTX_STRIPES];

/* The holder is in the middle of a few dozen instructions: look often, and if that takes long it was
 * descheduled, perhaps by this very thread's priority. Then only sleeping helps. */
void lctx__lock_contended(lctx_lock *lock)
{
    const struct timespec nap = {0, 20000};
    for (unsigned spins = 0;; spins++) {
        if (!atomic_load_explicit(&lock->held, memory_order_relaxed) &&
            !atomic_exchange_explicit(&lock->held, 1, memory_order_acquire))
            return;
        if (spins >= 1000)
            nanosleep(&nap, NULL);
#if defined(__x86_64__) || defined(__i386__)
        else
            __builtin_ia32_pause();
#endif
    }
}

void lctx__stripes_lock_all(void)
{
    for (int i = 0; i < LCTX_STRIPES; i++)
        lctx__lock(&lctx__stripes[i].lock);
}

void lctx__stripes_unlock_all(void)
{
    for (int i = 0; i < LCTX_STRIPES; i++)
        lctx__unlock(&lctx__stripes[i].lock);
}
