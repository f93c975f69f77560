/* SPDX-License-Identifier: MIT
 *
 * share.h - tokens: numbers by which a context is passed on to who has no pointer to it.
 *
 * A token holds nothing. It is known as long as its context is; nobody can guess one, and none comes again.
 */
#ifndef LCTX_SHARE_H
#define LCTX_SHARE_H

#include "node.h"

#pragma GCC visibility push(hidden)

/* Tokens are below this, so that they are exact as a double, too. */
#define LCTX_TOKEN_END (UINT64_C(1) << 53)

/* The token of ctx that also gives the right to cancel `cancel` (ctx itself or one above it; NULL: no such right):
 * the same each time. 0 with ENOMEM, or with the errno of the system's source of random numbers. */
uint64_t lctx__share(lctx *ctx, lctx *cancel);

/* What the token stands for, with a reference for the caller (*cancel: borrowed from it); NULL for a token that
 * is unknown, or whose context has gone. */
lctx *lctx__adopt(uint64_t token, lctx **cancel);

/* A context that was shared is freed. */
void lctx__share_forget(lctx *ctx);

void lctx__shares_before_fork(void);
void lctx__shares_after_fork(void);

#pragma GCC visibility pop
#endif
