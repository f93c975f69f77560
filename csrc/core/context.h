/* SPDX-License-Identifier: MIT
 *
 * context.h - what the binding needs of context.c beyond lcontext.h.
 */
#ifndef LCTX_CONTEXT_H
#define LCTX_CONTEXT_H

#include "node.h"

#pragma GCC visibility push(hidden)

/* lctx_with_value (LCTX_KIND_VALUE) or lctx_with_values (LCTX_KIND_VALUES) for entries whose keys may be lctx_keys
 * (LCTX_ENTRY_KEYED). The arguments are valid. */
lctx *lctx__with_entries(lctx *parent, lctx_kind kind, size_t n, const lctx_entry *entries);

/* lctx_merge for a caller who knows which parent's deadline is the soonest (NULL: none has one). */
lctx *lctx__merge(size_t n, lctx *const *parents, lctx *soonest);

/* lctx_deadline for a question of the library's own: err() need not look at the clock from then on. */
bool lctx__deadline(lctx *ctx, double *unix_time);

/* A context that has been canceled: always the same one, not counted, with a reference that nobody gives back. */
lctx *lctx__ended(void);

#pragma GCC visibility pop
#endif
