/* SPDX-License-Identifier: MIT
 *
 * node.h - what a context is made of.
 *
 * Two families. A *scope* can end: with_cancel, with_deadline, merge, custom. It carries the state, the
 * reason, and the list of what is to end with it. A *shade* cannot end by itself: background, without_cancel
 * (no scope at all) and with_value, which shows the state of the scope above it. What lies between two
 * scopes costs nothing: every context knows its scope, its nearest value layer and the scope whose deadline
 * is the effective one, from its creation on.
 *
 * The list of a scope holds three kinds of things, in the order of their creation: child scopes, the arms of
 * merges, and callbacks. They all keep their link at the same place behind a head that tells the kind.
 *
 * Who holds whom: every reference that a user has, every child and every value layer holds what is above it
 * (refs). Lists do not hold. Where a pointer is taken from a list, the one who takes it does so under the
 * list's lock and must succeed in lctx__refs_try: an object at zero references is on its way out, and its
 * owner takes that same lock to unlink it before it is freed.
 *
 * Guards are named with each field: "stripe" is the lock that lctx__stripe_of gives for the object itself,
 * "list's stripe" that of the scope in whose list it hangs.
 */
#ifndef LCTX_NODE_H
#define LCTX_NODE_H

#include <stdatomic.h>

#include "any.h"
#include "clock.h"
#include "public.h"
#include "lock.h"
#include "refs.h"

#pragma GCC visibility push(hidden)

typedef struct lctx_scope lctx_scope;
typedef struct lctx_layer lctx_layer;

typedef enum lctx_kind {
    LCTX_KIND_BACKGROUND,
    LCTX_KIND_TODO,
    LCTX_KIND_WITHOUT_CANCEL,
    LCTX_KIND_VALUE,
    LCTX_KIND_VALUES,
    LCTX_KIND_CANCEL, /* from here on: scopes */
    LCTX_KIND_DEADLINE,
    LCTX_KIND_MERGE,
    LCTX_KIND_CUSTOM,
    LCTX_KIND_ARM, /* from here on: not contexts, but in the lists of scopes */
    LCTX_KIND_CALLBACK,
    LCTX_KIND_WAITER, /* a callback that stands for something that waits */
    LCTX_KIND_ALARM   /* a callback that nobody counts */
} lctx_kind;

/* What lctx_head.state holds: the low bits are an lctx_err_t; BUSY is set while the thread that ended the
 * scope is still ending what is below it; SHARED, for good, when a token is made (share.h), of shades, too. */
enum { LCTX_STATE_ERR = 3, LCTX_STATE_BUSY = 4, LCTX_STATE_SHARED = 8 };

typedef struct lctx_head {
    lctx_refs refs;
    uint8_t kind;           /* r/o */
    _Atomic uint8_t state;  /* written under stripe, read anywhere */
    _Atomic uint8_t parked; /* set under stripe: a thread waits for this state in park.c */
    uint8_t linked;         /* list's stripe: it hangs in a list */
} lctx_head;

typedef struct lctx_link {
    struct lctx_link *prev, *next; /* list's stripe; the ending thread's once unlinked by it */
} lctx_link;

struct lctx {
    lctx_head head;
    lctx *parent;            /* r/o, a reference; NULL for the roots and for a merge */
    const lctx_layer *layer; /* r/o: the nearest values, here or above; NULL: none */
    union {
        lctx_scope *scope; /* r/o, a shade's: what decides whether it has ended; NULL: it never ends */
        lctx_scope *limit; /* r/o, a scope's: whose deadline holds for it; NULL: none */
    } at;
};

struct lctx_scope {
    lctx ctx;
    lctx_link link;      /* in the list of the scope above */
    lctx_link *items;    /* stripe: the first of the list; its prev is the last. NULL: empty */
    lctx_reason *reason; /* written once under stripe before state, a reference; NULL: none given */
    uint32_t shades;     /* stripe: live value contexts that show this scope */
    /* What only a custom context and a deadline have is here for want of a better gap. */
    uint8_t traits;       /* r/o: LCTX_UNENDING, LCTX_WITH_CAUSE */
    _Atomic bool watched; /* a deadline: somebody asked for the time; err() looks at the clock from then on */
    int16_t slot;         /* a deadline, wheel lock: where it hangs in the wheel; -1: nowhere */
};

enum {
    LCTX_UNENDING = 1,  /* a custom context that says that it never ends */
    LCTX_WITH_CAUSE = 2 /* a deadline with a cause of its own */
};

typedef struct lctx_deadline_scope {
    lctx_scope scope;
    lctx_link timer;          /* wheel lock */
    lctx_ns when;             /* r/o */
    _Atomic double unix_time; /* the deadline as a point in time; NaN until somebody asks (with_timeout) */
    lctx_reason *causes[];    /* r/o: a reference, if it is LCTX_WITH_CAUSE */
} lctx_deadline_scope;

/* One parent of a merge. The merge itself hangs in no list. */
typedef struct lctx_arm {
    lctx_head head;
    lctx_scope *source; /* r/o: in whose list this arm hangs; NULL: that parent never ends */
    lctx_scope *merge;  /* r/o */
    lctx *parent;       /* r/o, a reference */
    lctx_link link;
} lctx_arm;

typedef struct lctx_merge_scope {
    lctx_scope scope;
    lctx_layer *own_layer; /* r/o: made for this merge, or NULL */
    size_t count;          /* r/o */
    lctx_arm arms[];
} lctx_merge_scope;

typedef struct lctx_custom_scope {
    lctx_scope scope;
    const lctx_methods *methods;
    void *self;
    lctx_layer *own_layer;
} lctx_custom_scope;

#define LCTX_CONTAINER(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))

static inline bool lctx__is_scope(const lctx *ctx)
{
    return ctx->head.kind >= LCTX_KIND_CANCEL;
}

/* The scope that decides over ctx; NULL if it never ends. */
static inline lctx_scope *lctx__scope_of(const lctx *ctx)
{
    return lctx__is_scope(ctx) ? (lctx_scope *)ctx : ctx->at.scope;
}

/* The scope whose deadline holds for ctx; NULL: none. It is a deadline or a custom scope. */
static inline lctx_scope *lctx__limit_of(const lctx *ctx)
{
    const lctx_scope *scope = lctx__scope_of(ctx);
    return scope ? scope->ctx.at.limit : NULL;
}

static inline lctx_head *lctx__head_of(lctx_link *link)
{
    return (lctx_head *)((char *)link - offsetof(lctx_scope, link));
}

/* What a deadline ends with; NULL: nothing of its own. */
static inline lctx_reason *lctx__cause_of(const lctx_deadline_scope *deadline)
{
    return deadline->scope.traits & LCTX_WITH_CAUSE ? deadline->causes[0] : NULL;
}

static inline lctx_err_t lctx__state(const lctx_scope *scope)
{
    return atomic_load_explicit(&scope->ctx.head.state, memory_order_acquire) & LCTX_STATE_ERR;
}

/* Circular lists with a pointer to the first. */
static inline void lctx__list_append(lctx_link **first, lctx_link *link)
{
    if (*first == NULL) {
        link->prev = link->next = link;
        *first = link;
        return;
    }
    link->next = *first;
    link->prev = (*first)->prev;
    link->prev->next = link;
    link->next->prev = link;
}

static inline void lctx__list_remove(lctx_link **first, lctx_link *link)
{
    if (link->next == link) {
        *first = NULL;
        return;
    }
    link->prev->next = link->next;
    link->next->prev = link->prev;
    if (*first == link)
        *first = link->next;
}

#pragma GCC visibility pop
#endif
