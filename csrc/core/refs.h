/* SPDX-License-Identifier: MIT
 *
 * refs.h - reference counts.
 */
#ifndef LCTX_REFS_H
#define LCTX_REFS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

typedef _Atomic uint32_t lctx_refs;

/* Another one, for who has one. */
static inline void lctx__refs_take(lctx_refs *refs)
{
    atomic_fetch_add_explicit(refs, 1, memory_order_relaxed);
}

/* One for who has none, and knows by other means that the object is still there; false if that is on its way out. */
static inline bool lctx__refs_try(lctx_refs *refs)
{
    uint32_t count = atomic_load_explicit(refs, memory_order_relaxed);
    while (count != 0)
        if (atomic_compare_exchange_weak_explicit(refs, &count, count + 1, memory_order_relaxed, memory_order_relaxed))
            return true;
    return false;
}

/* Gives one back; true if it was the last. */
static inline bool lctx__refs_drop(lctx_refs *refs)
{
    return atomic_fetch_sub_explicit(refs, 1, memory_order_acq_rel) == 1;
}

#endif
