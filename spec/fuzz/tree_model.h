/* SPDX-License-Identifier: MIT
 *
 * tree_model.h - what lcontext.h says about trees, written down once more: arrays, one thread, no cleverness.
 *
 * A node stays in the table when it is freed (refs == 0), so indices are the order of creation. Moments are
 * nanoseconds on the monotonic clock.
 */
#ifndef TREE_MODEL_H
#define TREE_MODEL_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../csrc/core/lcontext.h"

enum { NODES = 200, CALLBACKS = 200, SLOTS = 16, PARENTS = 3, ENTRIES = 20, KEYS = 40, LOG = 2000, NONE = -1 };

#define AGREE(cond)                                                                                                    \
    do {                                                                                                               \
        if (!(cond)) {                                                                                                 \
            fprintf(stderr, "%s:%d: model and library differ: %s\n", __FILE__, __LINE__, #cond);                       \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

typedef enum kind { ROOT, CUT, VALUES, CANCEL, DEADLINE, MERGE, CUSTOM } kind; /* from CANCEL on: scopes */

typedef struct entry {
    int key, value; /* value 0: nil */
} entry;

typedef struct node {
    lctx *ctx;
    kind kind;
    int refs; /* users, nodes below, callbacks that hold it; 0: freed */
    int count, above[PARENTS];
    int scope;       /* that decides for it, NONE: it never ends */
    int limit;       /* whose deadline holds for it */
    int64_t moment;  /* DEADLINE, and a CUSTOM that tells one, else 0 */
    int64_t made_at; /* a DEADLINE that was given as a span, else 0 */
    double span;
    bool watched;
    int on_expiry;
    lctx_err_t err;
    int cause;
    int entry_count;
    entry entries[ENTRIES];
} node;

typedef struct callback {
    int scope;  /* that it is registered with, NONE: it never runs */
    int cancel; /* the slot that it cancels, or NONE */
    bool pending, holds;
    lctx_after *handle; /* NULL: given back */
} callback;

static struct model {
    node nodes[NODES];
    callback callbacks[CALLBACKS];
    int node_count, callback_count;
    int slots[SLOTS]; /* what the user holds, or NONE */
    int64_t now;
    bool unattended;
    int log[LOG], log_count; /* callbacks in the order in which they ran */
} model;

static bool node_is_scope(const node *n)
{
    return n->kind >= CANCEL;
}

static bool node_can_end(const node *n)
{
    if (n->scope == NONE)
        return false;
    const node *scope = &model.nodes[n->scope];
    return scope->kind != CUSTOM || (scope->count > 0 && node_can_end(&model.nodes[scope->above[0]]));
}

static lctx_err_t node_err(const node *n)
{
    return n->scope == NONE ? LCTX_LIVE : model.nodes[n->scope].err;
}

static int node_cause(const node *n)
{
    return n->scope == NONE ? 0 : model.nodes[n->scope].cause;
}

/* 0: none. */
static int64_t node_deadline(const node *n)
{
    return n->limit == NONE ? 0 : model.nodes[n->limit].moment;
}

/* What a registration holds itself for: a deadline, or something above that can end. */
static bool node_ends_by_itself(const node *n)
{
    if (n->limit != NONE && model.nodes[n->limit].kind == DEADLINE)
        return true;
    for (int i = 0; i < n->count; i++)
        if (node_can_end(&model.nodes[n->above[i]]))
            return true;
    return false;
}

static bool hangs_below(const node *n, int scope)
{
    for (int i = 0; i < n->count; i++)
        if (model.nodes[n->above[i]].scope == scope)
            return true;
    return false;
}

static void model_end(int scope, lctx_err_t err, int cause);

/* One reference less; without any, a node that is live ends, and is dead. */
static void let_go(int index, int *dead, int *count)
{
    node *n = &model.nodes[index];
    if (n->kind == ROOT || --n->refs > 0)
        return;
    if (node_is_scope(n))
        model_end(index, LCTX_CANCELED, 0);
    dead[(*count)++] = index;
}

static void model_unref(int index)
{
    int dead[NODES], count = 0;
    let_go(index, dead, &count);
    while (count > 0) {
        const node *n = &model.nodes[dead[--count]];
        for (int i = 0; i < n->count; i++)
            let_go(n->above[i], dead, &count);
    }
}

static void model_cancel(int index, int cause)
{
    if (node_is_scope(&model.nodes[index]))
        model_end(index, LCTX_CANCELED, cause);
}

static void model_call(int index)
{
    callback *c = &model.callbacks[index];
    AGREE(model.log_count < LOG);
    model.log[model.log_count++] = index;
    if (c->cancel != NONE && model.slots[c->cancel] != NONE)
        model_cancel(model.slots[c->cancel], 0);
    if (c->holds)
        model_unref(c->scope);
}

/* Breadth first; the callbacks after that. */
static void model_end(int scope, lctx_err_t err, int cause)
{
    int ended[NODES], count = 0, fired[CALLBACKS], fired_count = 0;
    if (model.nodes[scope].err != LCTX_LIVE)
        return;
    for (int i = -1; i < count; i++)
        for (int j = 0; j < model.node_count; j++) {
            node *n = &model.nodes[j];
            bool next = i < 0 ? j == scope : n->refs > 0 && node_is_scope(n) && hangs_below(n, ended[i]);
            if (!next || n->err != LCTX_LIVE)
                continue;
            n->err = err;
            n->cause = cause;
            ended[count++] = j;
        }
    for (int i = 0; i < count; i++)
        for (int j = 0; j < model.callback_count; j++)
            if (model.callbacks[j].pending && model.callbacks[j].scope == ended[i]) {
                model.callbacks[j].pending = false;
                fired[fired_count++] = j;
            }
    for (int i = 0; i < fired_count; i++)
        model_call(fired[i]);
}

static void model_expire(int index)
{
    node *n = &model.nodes[index];
    n->refs++;
    model_end(index, LCTX_DEADLINE_EXCEEDED, n->on_expiry);
    model_unref(index);
}

static bool is_armed(const node *n)
{
    return n->refs > 0 && n->kind == DEADLINE && n->err == LCTX_LIVE;
}

/* Deadlines pass in their order. */
static void model_run_timers(void)
{
    for (;;) {
        int first = NONE;
        for (int i = 0; i < model.node_count; i++)
            if (is_armed(&model.nodes[i]) && model.nodes[i].moment <= model.now &&
                (first == NONE || model.nodes[i].moment < model.nodes[first].moment))
                first = i;
        if (first == NONE)
            return;
        model_expire(first);
    }
}

/* Somebody looks at the clock for this node. */
static void model_look(int index)
{
    int limit = model.nodes[index].limit;
    if (limit != NONE && model.nodes[limit].kind == DEADLINE && model.nodes[limit].moment <= model.now)
        model_expire(limit);
}

/* A node over what is above it, born ended if that has. */
static node *model_add(kind kind, int count, const int *above, lctx *ctx)
{
    node *n = &model.nodes[model.node_count];
    *n = (node){.ctx = ctx, .kind = kind, .refs = 1, .count = count, .scope = NONE, .limit = NONE};
    int64_t soonest = 0;
    for (int i = 0; i < count; i++) {
        node *parent = &model.nodes[above[i]];
        n->above[i] = above[i];
        parent->refs++;
        if (kind == CUT)
            continue;
        if (kind == VALUES)
            n->scope = parent->scope;
        int64_t deadline = node_deadline(parent);
        if (parent->limit != NONE && ((deadline && (!soonest || deadline < soonest)) || count == 1)) {
            n->limit = parent->limit;
            soonest = deadline;
        }
        if (node_is_scope(n) && n->err == LCTX_LIVE && node_err(parent) != LCTX_LIVE) {
            n->err = node_err(parent);
            n->cause = node_cause(parent);
        }
    }
    if (node_is_scope(n))
        n->scope = model.node_count;
    if (kind == CUSTOM)
        n->limit = model.node_count;
    model.node_count++;
    return n;
}

static const entry *search(int index, int key, bool *visited)
{
    const node *n = &model.nodes[index];
    const entry *found = NULL;
    if (visited[index])
        return NULL;
    visited[index] = true;
    for (int i = n->entry_count; i-- > 0;)
        if (n->entries[i].key == key)
            return &n->entries[i];
    for (int i = 0; i < n->count && !found && n->kind != CUSTOM; i++)
        found = search(n->above[i], key, visited);
    return found;
}

/* The nearest entry, left before right; a custom context knows all that is above it. */
static const entry *model_find(int index, int key)
{
    bool visited[NODES] = {false};
    return search(index, key, visited);
}

static lctx_stats model_stats(void)
{
    lctx_stats stats = {0};
    for (int i = 0; i < model.node_count; i++) {
        const node *n = &model.nodes[i];
        if (n->kind == ROOT || n->refs == 0)
            continue;
        stats.contexts++;
        stats.live += node_err(n) == LCTX_LIVE;
        stats.timers += is_armed(n);
    }
    for (int i = 0; i < model.callback_count; i++)
        stats.callbacks += model.callbacks[i].pending && model.callbacks[i].scope != NONE;
    return stats;
}

#endif
