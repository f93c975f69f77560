/* SPDX-License-Identifier: MIT
 *
 * Locks. table.lock guards everything here. Under it nothing is taken but a stripe, and nothing of the user's runs.
 *
 * A context is in the table from its first token on until it is freed; LCTX_STATE_SHARED in its head says so.
 * Who frees it has taken the last reference before it comes for the lock: so who finds a context in the table,
 * under the lock, may read it, but must succeed in lctx__refs_try to use it.
 */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include "share.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/random.h>

/* Of each pair (ctx, cancel) there is one. */
typedef struct share {
    uint64_t token;
    lctx *ctx;
    lctx *cancel;
    struct share *next_of_token, *next_of_context;
} share;

enum { INITIAL_BUCKETS = 64 };

static struct {
    pthread_mutex_t lock;
    share **by_token, **by_context; /* chains; both NULL while nothing is shared */
    size_t mask, count;
} table = {.lock = PTHREAD_MUTEX_INITIALIZER};

static share **token_bucket(uint64_t token)
{
    return &table.by_token[token & table.mask];
}

static share **context_bucket(const lctx *ctx)
{
    uint64_t mixed = (uint64_t)(uintptr_t)ctx * UINT64_C(0x9E3779B97F4A7C15);
    return &table.by_context[(mixed >> 32) & table.mask];
}

static share *find_token(uint64_t token)
{
    share *found = table.count > 0 ? *token_bucket(token) : NULL;
    while (found && found->token != token)
        found = found->next_of_token;
    return found;
}

static share *find_pair(const lctx *ctx, const lctx *cancel)
{
    share *found = table.count > 0 ? *context_bucket(ctx) : NULL;
    while (found && (found->ctx != ctx || found->cancel != cancel))
        found = found->next_of_context;
    return found;
}

static void enter(share *entry)
{
    share **of_token = token_bucket(entry->token), **of_context = context_bucket(entry->ctx);
    entry->next_of_token = *of_token;
    *of_token = entry;
    entry->next_of_context = *of_context;
    *of_context = entry;
    table.count++;
}

/* Twice the buckets when there are as many shares; without memory the chains get longer. */
static bool grow(void)
{
    if (table.by_token && table.count <= table.mask)
        return true;
    size_t old_count = table.by_token ? table.mask + 1 : 0, count = old_count ? 2 * old_count : INITIAL_BUCKETS;
    share **by_token = calloc(count, sizeof(share *)), **by_context = calloc(count, sizeof(share *));
    if (by_token == NULL || by_context == NULL) {
        free(by_token);
        free(by_context);
        return table.by_token != NULL;
    }
    share **old_by_token = table.by_token, **old_by_context = table.by_context;
    table.by_token = by_token;
    table.by_context = by_context;
    table.mask = count - 1;
    table.count = 0;
    for (size_t i = 0; i < old_count; i++)
        for (share *entry = old_by_context[i], *next; entry; entry = next) {
            next = entry->next_of_context;
            enter(entry);
        }
    free(old_by_token);
    free(old_by_context);
    return true;
}

static bool new_token(uint64_t *token)
{
    do {
        if (getentropy(token, sizeof *token) != 0)
            return false;
        *token &= LCTX_TOKEN_END - 1;
    } while (*token == 0 || find_token(*token));
    return true;
}

static void flag_as_shared(lctx *ctx)
{
    lctx_stripe *stripe = lctx__stripe_lock(ctx);
    atomic_fetch_or_explicit(&ctx->head.state, LCTX_STATE_SHARED, memory_order_relaxed);
    lctx__stripe_unlock(stripe);
}

static share *new_share(lctx *ctx, lctx *cancel)
{
    share *entry = malloc(sizeof *entry);
    if (entry == NULL || !grow()) {
        free(entry);
        errno = ENOMEM;
        return NULL;
    }
    *entry = (share){.ctx = ctx, .cancel = cancel};
    if (!new_token(&entry->token)) {
        free(entry);
        return NULL;
    }
    enter(entry);
    flag_as_shared(ctx);
    return entry;
}

uint64_t lctx__share(lctx *ctx, lctx *cancel)
{
    pthread_mutex_lock(&table.lock);
    share *entry = find_pair(ctx, cancel);
    if (entry == NULL)
        entry = new_share(ctx, cancel);
    uint64_t token = entry ? entry->token : 0;
    pthread_mutex_unlock(&table.lock);
    return token;
}

lctx *lctx__adopt(uint64_t token, lctx **cancel)
{
    lctx *ctx = NULL;
    pthread_mutex_lock(&table.lock);
    const share *entry = find_token(token);
    if (entry && (entry->ctx->head.kind <= LCTX_KIND_TODO || lctx__refs_try(&entry->ctx->head.refs))) {
        ctx = entry->ctx;
        *cancel = entry->cancel;
    }
    pthread_mutex_unlock(&table.lock);
    return ctx;
}

void lctx__share_forget(lctx *ctx)
{
    share *gone = NULL;
    pthread_mutex_lock(&table.lock);
    for (share **link = context_bucket(ctx), *entry; (entry = *link);) {
        if (entry->ctx != ctx) {
            link = &entry->next_of_context;
            continue;
        }
        *link = entry->next_of_context;
        share **of_token = token_bucket(entry->token);
        while (*of_token != entry)
            of_token = &(*of_token)->next_of_token;
        *of_token = entry->next_of_token;
        entry->next_of_context = gone;
        gone = entry;
        table.count--;
    }
    if (table.count == 0) {
        free(table.by_token);
        free(table.by_context);
        table.by_token = table.by_context = NULL;
    }
    pthread_mutex_unlock(&table.lock);
    while (gone) {
        share *next = gone->next_of_context;
        free(gone);
        gone = next;
    }
}

void lctx__shares_before_fork(void)
{
    pthread_mutex_lock(&table.lock);
}

void lctx__shares_after_fork(void)
{
    pthread_mutex_unlock(&table.lock);
}
