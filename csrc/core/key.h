/* SPDX-License-Identifier: MIT
 *
 * key.h - keys that are not an address by nature, given one.
 *
 * The core compares keys as `const void *`. A string, a number or a boolean gets its address here: equal
 * content is one lctx_key in the whole process, so that two Lua states mean the same key by "user". A named
 * key is always a new one: equal to itself alone.
 *
 * Keys are reference-counted; one that nobody holds is forgotten.
 */
#ifndef LCTX_KEY_H
#define LCTX_KEY_H

#include "public.h"

#pragma GCC visibility push(hidden)

typedef struct lctx_key lctx_key;

/* The key of this content (LCTX_BOOLEAN, LCTX_INTEGER, LCTX_NUMBER that is not integral, LCTX_STRING): a new
 * reference; NULL with ENOMEM. With `create` false: NULL as well if no such key exists, and nothing is
 * allocated: no context can then hold a value under it. */
lctx_key *lctx__key_of(const lctx_any *content, bool create);

/* A key equal to no other, that prints as this name. */
lctx_key *lctx__key_new(const char *name, size_t length);

lctx_key *lctx__key_ref(lctx_key *key);
void lctx__key_unref(lctx_key *key); /* NULL is ignored */

/* What it prints as: for a named key the name, as a string. */
const lctx_any *lctx__key_content(const lctx_key *key);

void lctx__keys_before_fork(void);
void lctx__keys_after_fork(void);

#pragma GCC visibility pop
#endif
