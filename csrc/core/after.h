/* SPDX-License-Identifier: MIT
 *
 * after.h - callbacks: what hangs in the list of a scope and is taken out when it ends.
 *
 * A callback has two references, one for who registered it and one for the list, which goes with it to
 * whoever runs it. Its link is in the list of the scope, then in the list of what a walk has fired, then in
 * a mailbox: never in two at once.
 */
#ifndef LCTX_AFTER_H
#define LCTX_AFTER_H

#include "node.h"

#pragma GCC visibility push(hidden)

struct lctx_after {
    lctx_head head;
    lctx_scope *scope; /* r/o once linked; alive as long as head.linked */
    lctx_callback *run;
    void *arg;
    lctx_link link;
    intptr_t tag;     /* r/o: for who takes it from a mailbox */
    bool quick;       /* r/o: `run` is the library's own, never blocks, and may run inside the gate */
    bool holds_scope; /* r/o once linked: the registration has a reference to the scope */
};

/* Not yet linked, with both references. A quick callback is handed the list's reference. NULL with ENOMEM. */
lctx_after *lctx__after_new(lctx_kind kind, lctx_callback *run, void *arg, bool quick);

/* Hangs it under the scope of ctx. False if that has ended: nothing has happened then. A ctx that never ends
 * is fine: the callback never runs. */
bool lctx__after_link(lctx_after *after, lctx *ctx);

/* Takes it out of the list, with the list's reference; true if that kept it from being run. */
bool lctx__after_stop(lctx_after *after);

void lctx__after_unref(lctx_after *after);

/* A scope has ended and its list was taken: the quick ones inside the gate, then the others outside. `fired`
 * is a circular list. */
void lctx__after_run_quick(lctx_link **fired);
void lctx__after_run_rest(lctx_link **fired);

static inline lctx_after *lctx__after_of(lctx_link *link)
{
    return LCTX_CONTAINER(link, lctx_after, link);
}

#pragma GCC visibility pop
#endif
