/* SPDX-License-Identifier: MIT
 *
 * bell.h - a descriptor that is readable while it is rung: an eventfd on Linux, a pipe elsewhere.
 */
#ifndef LCTX_BELL_H
#define LCTX_BELL_H

#include <stdbool.h>

typedef struct lctx_bell {
    int fd;     /* to be polled; -1: closed */
    int ringer; /* to be written; the same one for an eventfd */
} lctx_bell;

#define LCTX_BELL_CLOSED {-1, -1}

/* False with errno when no descriptor is to be had. */
bool lctx__bell_open(lctx_bell *bell);
void lctx__bell_close(lctx_bell *bell);

/* Both do nothing to a closed bell. Ringing twice is ringing once. */
void lctx__bell_ring(const lctx_bell *bell);
void lctx__bell_hush(const lctx_bell *bell);

/* After fork, in the child: a bell of its own under the same descriptor, in which loops know it. */
void lctx__bell_renew(lctx_bell *bell);

#endif
