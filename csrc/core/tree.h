/* SPDX-License-Identifier: MIT
 *
 * tree.h - linking, ending and freeing: the part of the core where threads meet.
 */
#ifndef LCTX_TREE_H
#define LCTX_TREE_H

#include "node.h"

#pragma GCC visibility push(hidden)

/* Puts the head of a list item of a new scope, arm or callback under `above`. False if `above` has ended:
 * then the item is not linked. */
bool lctx__link(lctx_scope *above, lctx_head *head, lctx_link *link);

/* Takes an item out of the list of `above` if it is still in it; says whether it was. */
bool lctx__unlink(lctx_scope *above, lctx_head *head, lctx_link *link);

/* Counts a new scope and links it to what it is to end with; if that has ended, it is born ended. */
void lctx__plant(lctx_scope *scope);

/* Ends a scope and everything below, with `reason` (borrowed, may be NULL). The first end wins. Returns when
 * everything below has ended, whoever ended it. The caller holds a reference. */
void lctx__end(lctx_scope *scope, lctx_err_t err, lctx_reason *reason);

/* Whether a scope can end without a cancel of its own: it has a deadline, or something above it can end. */
bool lctx__ends_by_itself(const lctx_scope *scope);

/* Counts a new shade. */
void lctx__shade_added(lctx *shade);

#pragma GCC visibility pop
#endif
