/* SPDX-License-Identifier: MIT
 *
 * notifier.c - a context as a file descriptor.
 *
 * The bell may be rung by another thread at the moment when the notifier is freed: so bell and callback live
 * in one block that both sides hold.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "after.h"
#include "bell.h"
#include "tree.h"

struct lctx_notifier {
    lctx_refs refs; /* the user's and the registration's */
    lctx_bell bell; /* closed by the last of them */
    lctx *ctx;
    lctx_after *after;
};

static void unref(lctx_notifier *notifier)
{
    if (!lctx__refs_drop(&notifier->refs))
        return;
    lctx__bell_close(&notifier->bell);
    free(notifier);
}

static void ring(lctx_after *after, void *arg)
{
    lctx_notifier *notifier = arg;
    lctx__bell_ring(&notifier->bell);
    unref(notifier);
    lctx__after_unref(after);
}

lctx_notifier *lctx_notifier_new(lctx *ctx)
{
    lctx_notifier *notifier = calloc(1, sizeof *notifier);
    if (notifier == NULL)
        return NULL;
    atomic_init(&notifier->refs, 2);
    if (!lctx__bell_open(&notifier->bell)) {
        int error = errno;
        free(notifier);
        errno = error;
        return NULL;
    }
    notifier->after = lctx__after_new(LCTX_KIND_WAITER, ring, notifier, true);
    if (notifier->after == NULL) {
        lctx__bell_close(&notifier->bell);
        free(notifier);
        errno = ENOMEM;
        return NULL;
    }
    notifier->ctx = lctx_ref(ctx);
    if (!lctx__after_link(notifier->after, ctx))
        ring(notifier->after, notifier);
    return notifier;
}

int lctx_notifier_fd(const lctx_notifier *notifier)
{
    return notifier->bell.fd;
}

void lctx_notifier_free(lctx_notifier *notifier)
{
    if (notifier == NULL)
        return;
    lctx *ctx = notifier->ctx;
    bool never = lctx__scope_of(ctx) == NULL;
    if (lctx__after_stop(notifier->after) || never)
        unref(notifier);
    lctx__after_unref(notifier->after);
    unref(notifier);
    lctx_unref(ctx);
}
