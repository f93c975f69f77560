/* SPDX-License-Identifier: MIT
 *
 * any.h - owned copies of tagged values, and reasons: copies that many contexts share.
 */
#ifndef LCTX_ANY_H
#define LCTX_ANY_H

#include <stdatomic.h>

#include "public.h"

#pragma GCC visibility push(hidden)

/* Makes *to an owned copy of *from. False (and *to a nil) when memory is out. */
bool lctx__any_copy(lctx_any *to, const lctx_any *from);
void lctx__any_drop(lctx_any *any);

/* An object of a Lua state together with how it prints, for who cannot read it. Passed as an lctx_any whose
 * `reserved` is LCTX_ANY_DESCRIBED. */
enum { LCTX_ANY_DESCRIBED = 2 }; /* 1 is LCTX_ENTRY_KEYED (layer.h) */
typedef struct lctx_described {
    lctx_any any;
    const char *text;
    size_t length;
} lctx_described;

typedef struct lctx_text {
    size_t length;
    char bytes[];
} lctx_text;

/* Why a context ended. It flows down by reference. Immutable after it was made, but for the text. */
typedef struct lctx_reason {
    _Atomic uint32_t refs;
    lctx_any value;
    _Atomic(lctx_text *) text; /* how an object prints; set once, or NULL */
} lctx_reason;

/* NULL with ENOMEM. */
lctx_reason *lctx__reason_new(const lctx_any *value);
void lctx__reason_unref(lctx_reason *reason);

/* Says how the object prints if nobody has. False when memory is out. */
bool lctx__reason_describe(lctx_reason *reason, const char *text, size_t length);

static inline lctx_reason *lctx__reason_ref(lctx_reason *reason)
{
    if (reason)
        atomic_fetch_add_explicit(&reason->refs, 1, memory_order_relaxed);
    return reason;
}

#pragma GCC visibility pop
#endif
