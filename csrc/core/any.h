/* SPDX-License-Identifier: MIT
 *
 * any.h - owned copies of tagged values, and reasons: copies that many contexts share.
 */
#ifndef LCTX_ANY_H
#define LCTX_ANY_H

#include <stdatomic.h>

#include "lcontext.h"

/* Makes *to an owned copy of *from. False (and *to a nil) when memory is out. */
bool lctx__any_copy(lctx_any *to, const lctx_any *from);
void lctx__any_drop(lctx_any *any);

/* Why a context ended. It flows down by reference. Immutable after it was made. */
typedef struct lctx_reason {
    _Atomic uint32_t refs;
    lctx_any value;
} lctx_reason;

/* NULL with ENOMEM. */
lctx_reason *lctx__reason_new(const lctx_any *value);
void lctx__reason_unref(lctx_reason *reason);

static inline lctx_reason *lctx__reason_ref(lctx_reason *reason)
{
    if (reason)
        atomic_fetch_add_explicit(&reason->refs, 1, memory_order_relaxed);
    return reason;
}

#endif
