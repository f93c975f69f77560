/* SPDX-License-Identifier: MIT */
#include "after.h"

#include <errno.h>
#include <stdlib.h>

#include "tree.h"

lctx_after *lctx__after_new(lctx_kind kind, lctx_callback *run, void *arg, bool quick)
{
    lctx_after *after = malloc(sizeof *after);
    if (after == NULL)
        return NULL;
    *after = (lctx_after){.head = {.refs = 2, .kind = (uint8_t)kind}, .run = run, .arg = arg, .quick = quick};
    return after;
}

bool lctx__after_link(lctx_after *after, lctx *ctx)
{
    after->scope = lctx__scope_of(ctx);
    if (after->scope)
        return lctx__link(after->scope, &after->head, &after->link);
    after->head.linked = 1; /* in no list: only lctx__after_stop will look */
    lctx__after_unref(after);
    return true;
}

static bool stop_unlisted(lctx_after *after)
{
    lctx_stripe *stripe = lctx__stripe_lock(after);
    bool stopped = after->head.linked;
    after->head.linked = 0;
    lctx__stripe_unlock(stripe);
    return stopped;
}

bool lctx__after_stop(lctx_after *after)
{
    if (after->scope == NULL)
        return stop_unlisted(after);
    lctx_scope *held = after->holds_scope ? after->scope : NULL;
    if (!lctx__unlink(after->scope, &after->head, &after->link))
        return false;
    lctx__after_unref(after);
    if (held)
        lctx_unref(&held->ctx);
    return true;
}

void lctx__after_unref(lctx_after *after)
{
    if (lctx__refs_drop(&after->head.refs))
        free(after);
}

static void run_user_callback(lctx_after *after)
{
    lctx_scope *held = after->holds_scope ? after->scope : NULL;
    after->run(after, after->arg);
    lctx__after_unref(after);
    if (held)
        lctx_unref(&held->ctx);
}

void lctx__after_run_quick(lctx_link **fired)
{
    lctx_link *rest = NULL;
    while (*fired) {
        lctx_link *link = *fired;
        lctx__list_remove(fired, link);
        lctx_after *after = lctx__after_of(link);
        if (after->quick)
            after->run(after, after->arg);
        else
            lctx__list_append(&rest, link);
    }
    *fired = rest;
}

void lctx__after_run_rest(lctx_link **fired)
{
    while (*fired) {
        lctx_link *link = *fired;
        lctx__list_remove(fired, link);
        run_user_callback(lctx__after_of(link));
    }
}

/* ---- The public face ---------------------------------------------------------------------------------- */

lctx_after *lctx_after_func(lctx *ctx, lctx_callback *f, void *arg)
{
    if (ctx == NULL || f == NULL) {
        errno = EINVAL;
        return NULL;
    }
    lctx_after *after = lctx__after_new(LCTX_KIND_CALLBACK, f, arg, false);
    if (after == NULL)
        return NULL;
    lctx_scope *scope = lctx__scope_of(ctx);
    if (scope && lctx__ends_by_itself(scope)) {
        after->holds_scope = true;
        lctx_ref(&scope->ctx);
    }
    if (lctx__after_link(after, ctx))
        return after;
    run_user_callback(after);
    return after;
}

bool lctx_after_stop(lctx_after *after)
{
    return lctx__after_stop(after);
}

void lctx_after_free(lctx_after *after)
{
    if (after)
        lctx__after_unref(after);
}
