/* SPDX-License-Identifier: MIT
 *
 * tree.c - linking, ending, freeing.
 *
 * Invariants
 *   1. A scope's state changes once, from LIVE to ended, under its stripe; its reason is stored before. Who
 *      reads an ended state with acquire also reads the final reason.
 *   2. Nothing is linked to a scope that has ended: lctx__link looks under the lock that the end is set under.
 *      So a list only shrinks once its scope has ended.
 *   3. An item is in at most one list. Whoever unlinks it - the walk of the scope above, its own end, its
 *      stop - does so under that list's stripe, and head.linked tells the others that it is done.
 *   4. BUSY is set only by the thread that ended the scope, in the same store, and that thread clears it when
 *      everything below has ended, whoever ended that. A scope that was ended by its own cancel stays in the
 *      list above until then: a walk from above finds it there, and knows that it has to settle (gate.h).
 *   5. A scope is freed by whoever takes the last reference, and has been ended and unlinked then.
 *
 * Locks. At most one stripe is held at a time, and nothing else is taken under it: no order, no deadlock.
 * No walk waits for another before it has done its own part, and who waits for a scope to be no longer BUSY is
 * not in a walk: those waits cannot form a circle either. The whole of a walk is inside the gate (gate.h).
 *
 * Depth. No function here calls itself: a walk keeps the ended scopes that still have a list in a queue that
 * is threaded through their own links (free, since they were unlinked from above), and frees from a stack
 * that is threaded through dead contexts.
 */
#include "tree.h"

#include <stdlib.h>

#include "after.h"
#include "gate.h"
#include "layer.h"
#include "park.h"
#include "share.h"
#include "timer.h"

/* ---- Linking ------------------------------------------------------------------------------------------- */

static void count(lctx_stripe *stripe, const lctx_head *head, int change)
{
    if (head->kind == LCTX_KIND_CALLBACK)
        stripe->callbacks += change;
    else if (head->kind == LCTX_KIND_WAITER)
        stripe->waiters += change;
}

static void link_locked(lctx_scope *above, lctx_head *head, lctx_link *link)
{
    lctx__list_append(&above->items, link);
    head->linked = 1;
}

bool lctx__link(lctx_scope *above, lctx_head *head, lctx_link *link)
{
    lctx_stripe *stripe = lctx__stripe_lock(above);
    bool live = lctx__state(above) == LCTX_LIVE;
    if (live) {
        link_locked(above, head, link);
        count(stripe, head, 1);
    }
    lctx__stripe_unlock(stripe);
    return live;
}

static void unlink_locked(lctx_stripe *stripe, lctx_scope *above, lctx_head *head, lctx_link *link)
{
    lctx__list_remove(&above->items, link);
    head->linked = 0;
    count(stripe, head, -1);
}

bool lctx__unlink(lctx_scope *above, lctx_head *head, lctx_link *link)
{
    lctx_stripe *stripe = lctx__stripe_lock(above);
    bool linked = head->linked;
    if (linked)
        unlink_locked(stripe, above, head, link);
    lctx__stripe_unlock(stripe);
    return linked;
}

static lctx_scope *scope_above(const lctx_scope *scope)
{
    return scope->ctx.parent ? lctx__scope_of(scope->ctx.parent) : NULL;
}

/* Takes an ended scope out of the lists above it. */
static void detach(lctx_scope *scope)
{
    if (scope->ctx.head.kind == LCTX_KIND_MERGE) {
        lctx_merge_scope *merge = (lctx_merge_scope *)scope;
        for (size_t i = 0; i < merge->count; i++)
            if (merge->arms[i].source)
                lctx__unlink(merge->arms[i].source, &merge->arms[i].head, &merge->arms[i].link);
    } else if (scope_above(scope)) {
        lctx__unlink(scope_above(scope), &scope->ctx.head, &scope->link);
    }
}

static void count_scope(lctx_stripe *stripe, int live)
{
    stripe->contexts++;
    stripe->live += live;
}

static void count_alone(lctx_scope *scope)
{
    lctx_stripe *stripe = lctx__stripe_lock(scope);
    count_scope(stripe, 1);
    lctx__stripe_unlock(stripe);
}

static void plant_merge(lctx_merge_scope *merge)
{
    count_alone(&merge->scope);
    for (size_t i = 0; i < merge->count; i++) {
        lctx_arm *arm = &merge->arms[i];
        if (arm->source && !lctx__link(arm->source, &arm->head, &arm->link))
            lctx__end(&merge->scope, lctx__state(arm->source), arm->source->reason);
    }
    if (lctx__state(&merge->scope) != LCTX_LIVE)
        detach(&merge->scope); /* an arm that was linked after another had ended the merge */
}

/* One section for all of it. Who is born ended is seen by nobody yet: no lock is needed to end it. */
static void plant_below(lctx_scope *above, lctx_scope *scope)
{
    lctx_stripe *stripe = lctx__stripe_lock(above);
    lctx_err_t err = lctx__state(above);
    count_scope(stripe, err == LCTX_LIVE);
    if (err == LCTX_LIVE)
        link_locked(above, &scope->ctx.head, &scope->link);
    lctx__stripe_unlock(stripe);
    if (err != LCTX_LIVE) {
        scope->reason = lctx__reason_ref(above->reason);
        atomic_store_explicit(&scope->ctx.head.state, (uint8_t)err, memory_order_relaxed);
    }
}

void lctx__plant(lctx_scope *scope)
{
    lctx_scope *above = scope_above(scope);
    if (scope->ctx.head.kind == LCTX_KIND_MERGE)
        plant_merge((lctx_merge_scope *)scope);
    else if (above)
        plant_below(above, scope);
    else
        count_alone(scope);
}

void lctx__shade_added(lctx *shade)
{
    lctx_scope *scope = shade->at.scope;
    lctx_stripe *stripe = lctx__stripe_lock(scope ? (void *)scope : (void *)shade);
    stripe->contexts++;
    if (scope == NULL) {
        stripe->live++;
    } else if (lctx__state(scope) == LCTX_LIVE) {
        stripe->live++;
        scope->shades++;
    }
    lctx__stripe_unlock(stripe);
}

static void shade_removed(lctx *shade)
{
    lctx_scope *scope = shade->at.scope;
    lctx_stripe *stripe = lctx__stripe_lock(scope ? (void *)scope : (void *)shade);
    stripe->contexts--;
    if (scope == NULL) {
        stripe->live--;
    } else if (lctx__state(scope) == LCTX_LIVE) {
        stripe->live--;
        scope->shades--;
    }
    lctx__stripe_unlock(stripe);
}

bool lctx__ends_by_itself(const lctx_scope *scope)
{
    const lctx_scope *limit = scope->ctx.at.limit;
    if (limit && limit->ctx.head.kind == LCTX_KIND_DEADLINE)
        return true;
    if (scope_above(scope) && lctx_can_end(scope->ctx.parent))
        return true;
    if (scope->ctx.head.kind != LCTX_KIND_MERGE)
        return false;
    const lctx_merge_scope *merge = (const lctx_merge_scope *)scope;
    for (size_t i = 0; i < merge->count; i++)
        if (merge->arms[i].source && !(merge->arms[i].source->traits & LCTX_UNENDING))
            return true;
    return false;
}

/* ---- Ending -------------------------------------------------------------------------------------------- */

/* One walk: what it ends with, and what it has collected. */
typedef struct walk {
    lctx_err_t err;
    lctx_reason *reason;
    lctx_link *ended;   /* scopes that this walk has ended and made BUSY, each with a reference */
    lctx_link *dropped; /* scopes whose last reference the walk has, to be freed outside the gate */
    lctx_link *fired;   /* callbacks */
    bool tangled;       /* it has come upon a scope that is BUSY */
} walk;

typedef enum outcome { ENDED_BEFORE, ENDED, ENDED_BUSY, NEEDS_GATE } outcome;

/* Ends this one scope. If there is a list to walk the scope is BUSY afterwards; that takes the gate. */
static outcome end_one(lctx_scope *scope, lctx_err_t err, lctx_reason *reason, bool inside_gate)
{
    lctx_stripe *stripe = lctx__stripe_lock(scope);
    outcome outcome = ENDED_BEFORE;
    bool parked = false;
    if (lctx__state(scope) == LCTX_LIVE) {
        outcome = scope->items == NULL ? ENDED : inside_gate ? ENDED_BUSY : NEEDS_GATE;
        if (outcome != NEEDS_GATE) {
            scope->reason = lctx__reason_ref(reason);
            uint8_t state = (uint8_t)err | (outcome == ENDED_BUSY ? LCTX_STATE_BUSY : 0);
            state |= atomic_load_explicit(&scope->ctx.head.state, memory_order_relaxed) & LCTX_STATE_SHARED;
            atomic_store_explicit(&scope->ctx.head.state, state, memory_order_release);
            stripe->live -= 1 + (long)scope->shades;
            parked = atomic_load_explicit(&scope->ctx.head.parked, memory_order_relaxed);
        }
    }
    lctx__stripe_unlock(stripe);
    if (parked)
        lctx__park_wake(scope);
    if ((outcome == ENDED || outcome == ENDED_BUSY) && scope->ctx.head.kind == LCTX_KIND_DEADLINE)
        lctx__timer_disarm((lctx_deadline_scope *)scope);
    return outcome;
}

static void clear_busy(lctx_scope *scope)
{
    lctx_stripe *stripe = lctx__stripe_lock(scope);
    atomic_fetch_and_explicit(&scope->ctx.head.state, (uint8_t)~LCTX_STATE_BUSY, memory_order_release);
    bool parked = atomic_load_explicit(&scope->ctx.head.parked, memory_order_relaxed);
    lctx__stripe_unlock(stripe);
    if (parked)
        lctx__park_wake(scope);
}

static bool is_busy(const lctx_scope *scope)
{
    return (atomic_load_explicit(&scope->ctx.head.state, memory_order_acquire) & LCTX_STATE_BUSY) != 0;
}

/* Gives back a reference that the walk has taken. Freeing calls destructors of the user's, and waits. */
static void drop(lctx_scope *scope, walk *walk)
{
    uint32_t refs = atomic_load_explicit(&scope->ctx.head.refs, memory_order_relaxed);
    while (refs > 1)
        if (atomic_compare_exchange_weak_explicit(&scope->ctx.head.refs, &refs, refs - 1, memory_order_release,
                                                  memory_order_relaxed))
            return;
    lctx__list_append(&walk->dropped, &scope->link);
}

static lctx_scope *scope_of_link(lctx_link *link)
{
    return LCTX_CONTAINER(link, lctx_scope, link);
}

static lctx_scope *pop_scope(lctx_link **list)
{
    lctx_link *link = *list;
    lctx__list_remove(list, link);
    return scope_of_link(link);
}

/* Ends a scope that the walk has come upon, and takes over the caller's reference to it. */
static void end_below(lctx_scope *scope, walk *walk)
{
    switch (end_one(scope, walk->err, walk->reason, true)) {
    case ENDED_BUSY:
        lctx__list_append(&walk->ended, &scope->link);
        return;
    case ENDED_BEFORE:
        walk->tangled |= is_busy(scope);
        break;
    default:
        if (scope->ctx.head.kind == LCTX_KIND_MERGE)
            detach(scope);
    }
    drop(scope, walk);
}

/* Takes the first item of an ended scope's list, with a reference; false when the list is empty. *item is
 * NULL for one that is just being freed. */
static bool take_item(lctx_scope *scope, lctx_head **item)
{
    lctx_stripe *stripe = lctx__stripe_lock(scope);
    lctx_link *link = scope->items;
    if (link) {
        lctx_head *head = lctx__head_of(link);
        *item = head->kind == LCTX_KIND_ARM ? &((lctx_arm *)head)->merge->ctx.head : head;
        if (head->kind < LCTX_KIND_CALLBACK && !lctx__refs_try(&(*item)->refs))
            *item = NULL;
        unlink_locked(stripe, scope, head, link);
    }
    lctx__stripe_unlock(stripe);
    return link != NULL;
}

static void end_items(lctx_scope *scope, walk *walk)
{
    /* Callbacks of this scope go before those of what is ended below it: the walk is breadth first. */
    for (lctx_head *item; take_item(scope, &item);) {
        if (item == NULL)
            continue;
        if (item->kind >= LCTX_KIND_CALLBACK)
            lctx__list_append(&walk->fired, &((lctx_after *)item)->link);
        else
            end_below((lctx_scope *)item, walk);
    }
}

/* The own part of a walk: ends what is below `top` and was not ended by others. */
static void end_descendants(lctx_scope *top, walk *walk)
{
    end_items(top, walk);
    if (walk->ended) {
        lctx_link *link = walk->ended;
        do { /* what end_items appends comes up later in this same loop */
            end_items(scope_of_link(link), walk);
            link = link->next;
        } while (link != walk->ended);
    }
}

/* Everything below `top`, which was BUSY with this walk, has ended: says so. */
static void finish_walk(lctx_scope *top, walk *walk)
{
    clear_busy(top);
    while (walk->ended) {
        lctx_scope *scope = pop_scope(&walk->ended);
        clear_busy(scope);
        if (scope->ctx.head.kind == LCTX_KIND_MERGE)
            detach(scope);
        drop(scope, walk);
    }
}

/* Of a scope that has a list. ENDED_BEFORE: another thread was quicker, and may be BUSY with it. */
LCTX_APART static outcome end_tree(lctx_scope *top, lctx_err_t err, lctx_reason *reason)
{
    walk walk = {.err = err, .reason = reason};
    lctx__gate_enter();
    unsigned part = lctx__part_begin(); /* before anybody can see the scope BUSY */
    outcome outcome = end_one(top, err, reason, true);
    if (outcome == ENDED_BUSY)
        end_descendants(top, &walk);
    lctx__part_end(part, walk.tangled);
    if (walk.tangled)
        lctx__settle();
    if (outcome == ENDED_BUSY)
        finish_walk(top, &walk);
    lctx__after_run_quick(&walk.fired);
    lctx__gate_leave();
    if (outcome == ENDED_BEFORE)
        return outcome;
    detach(top);
    while (walk.dropped)
        lctx_unref(&pop_scope(&walk.dropped)->ctx);
    lctx__after_run_rest(&walk.fired);
    return outcome;
}

void lctx__end(lctx_scope *scope, lctx_err_t err, lctx_reason *reason)
{
    outcome outcome = end_one(scope, err, reason, false);
    if (outcome == NEEDS_GATE)
        outcome = end_tree(scope, err, reason);
    else if (outcome == ENDED)
        detach(scope);
    if (outcome == ENDED_BEFORE)
        lctx__park_while_busy(scope);
}

/* ---- References ---------------------------------------------------------------------------------------- */

lctx *lctx_ref(lctx *ctx)
{
    if (ctx->head.kind > LCTX_KIND_TODO)
        lctx__refs_take(&ctx->head.refs);
    return ctx;
}

/* Gives back a reference; true if it was the last. */
static inline bool drop_ref(lctx *ctx)
{
    return ctx->head.kind > LCTX_KIND_TODO && lctx__refs_drop(&ctx->head.refs);
}

/* Ends a context that nobody refers to any more, and strikes it off. */
static void retire(lctx *ctx)
{
    if (lctx__is_scope(ctx)) {
        lctx_scope *scope = (lctx_scope *)ctx;
        if (lctx__state(scope) == LCTX_LIVE)
            lctx__end(scope, LCTX_CANCELED, NULL);
        lctx_stripe *stripe = lctx__stripe_lock(scope);
        stripe->contexts--;
        lctx__stripe_unlock(stripe);
    } else {
        shade_removed(ctx);
    }
    if (atomic_load_explicit(&ctx->head.state, memory_order_relaxed) & LCTX_STATE_SHARED)
        lctx__share_forget(ctx);
}

/* Frees what a context has beside its memory. Its maps share nodes with those of its ancestors, so this comes
 * before the ancestors may go. */
static void dispose(lctx *ctx)
{
    if (lctx__is_scope(ctx))
        lctx__reason_unref(((lctx_scope *)ctx)->reason);
    switch (ctx->head.kind) {
    case LCTX_KIND_VALUE:
    case LCTX_KIND_VALUES:
        lctx__layer_clear((lctx_layer *)ctx->layer);
        break;
    case LCTX_KIND_DEADLINE:
        lctx__reason_unref(lctx__cause_of((lctx_deadline_scope *)ctx));
        break;
    case LCTX_KIND_MERGE:
        lctx__layer_free(((lctx_merge_scope *)ctx)->own_layer);
        break;
    case LCTX_KIND_CUSTOM: {
        lctx_custom_scope *custom = (lctx_custom_scope *)ctx;
        lctx__layer_free(custom->own_layer);
        if (custom->methods->drop)
            custom->methods->drop(custom->self);
        break;
    }
    }
}

/* Contexts without references, to be freed: a stack, threaded through the field `at`. Only a merge leaves more than
 * one. */
static void push_dead(lctx **dead, lctx *ctx)
{
    retire(ctx);
    ctx->at.scope = (lctx_scope *)*dead;
    *dead = ctx;
}

static void drop_parents(lctx *ctx, lctx **dead)
{
    if (ctx->parent && drop_ref(ctx->parent))
        push_dead(dead, ctx->parent);
    if (ctx->head.kind != LCTX_KIND_MERGE)
        return;
    lctx_merge_scope *merge = (lctx_merge_scope *)ctx;
    for (size_t i = 0; i < merge->count; i++)
        if (drop_ref(merge->arms[i].parent))
            push_dead(dead, merge->arms[i].parent);
}

LCTX_APART static void bury(lctx *ctx)
{
    lctx *dead = NULL;
    for (push_dead(&dead, ctx); (ctx = dead);) {
        dead = (lctx *)ctx->at.scope;
        dispose(ctx);
        drop_parents(ctx, &dead);
        free(ctx);
    }
}

void lctx_unref(lctx *ctx)
{
    if (ctx && drop_ref(ctx))
        bury(ctx);
}

/* ---- Counting ------------------------------------------------------------------------------------------ */

void lctx_get_stats(lctx_stats *stats)
{
    long contexts = 0, live = 0, callbacks = 0, waiters = 0;
    for (int i = 0; i < LCTX_STRIPES; i++) {
        lctx_stripe *stripe = &lctx__stripes[i];
        lctx__lock(&stripe->lock);
        contexts += stripe->contexts;
        live += stripe->live;
        callbacks += stripe->callbacks;
        waiters += stripe->waiters;
        lctx__unlock(&stripe->lock);
    }
    *stats = (lctx_stats){(size_t)contexts, (size_t)live, lctx__timer_count(), (size_t)callbacks, (size_t)waiters};
}
