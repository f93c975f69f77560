/* SPDX-License-Identifier: MIT
 *
 * any.h - owned copies of tagged values, and reasons: copies that many contexts share.
 */
#ifndef LCTX_ANY_H
#define LCTX_ANY_H

#include <stdatomic.h>

#include "public.h"
#include "refs.h"

#pragma GCC visibility push(hidden)

/* For what is not just its bits: strings, and pointers with a destructor. */
bool lctx__any_copy_string(lctx_any *to, const lctx_any *from);
void lctx__any_drop_owned(lctx_any *any);

/* Makes *to an owned copy of *from. False (and *to a nil) when memory is out. */
static inline bool lctx__any_copy(lctx_any *to, const lctx_any *from)
{
    *to = *from;
    return from->type != LCTX_STRING || lctx__any_copy_string(to, from);
}

static inline void lctx__any_drop(lctx_any *any)
{
    if (any->type == LCTX_STRING || any->type == LCTX_POINTER)
        lctx__any_drop_owned(any);
}

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
    lctx_refs refs;
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
        lctx__refs_take(&reason->refs);
    return reason;
}

#pragma GCC visibility pop
#endif
