/* SPDX-License-Identifier: MIT
 *
 * bell.h - a descriptor that is readable while it is rung: an eventfd on Linux, a pipe elsewhere.
 *
 * A descriptor is shared with the child after a fork, and so would be its ringing. So all open bells are known,
 * and in the child each gets a descriptor of its own under the same number, in which loops know it.
 */
#ifndef LCTX_BELL_H
#define LCTX_BELL_H

#include <stdatomic.h>
#include <stdbool.h>

#include "node.h"

#pragma GCC visibility push(hidden)

typedef struct lctx_bell {
    int fd;     /* to be polled; -1: closed */
    int ringer; /* to be written; the same one for an eventfd */
    _Atomic bool rung;
    lctx_link all; /* registry.mutex in bell.c */
} lctx_bell;

#define LCTX_BELL_CLOSED                                                                                               \
    {                                                                                                                  \
        .fd = -1, .ringer = -1                                                                                         \
    }

/* False with errno when no descriptor is to be had. The bell must stay where it is until it is closed. */
bool lctx__bell_open(lctx_bell *bell);
void lctx__bell_close(lctx_bell *bell);

/* Both do nothing to a closed bell. Ringing twice is ringing once. Not at the same time for one bell. */
void lctx__bell_ring(lctx_bell *bell);
void lctx__bell_hush(lctx_bell *bell);

void lctx__bells_before_fork(void);
void lctx__bells_after_fork(bool child);

#pragma GCC visibility pop
#endif
