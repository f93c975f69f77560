/* SPDX-License-Identifier: MIT
 *
 * context.c - the constructors, and what a context answers.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "context.h"
#include "key.h"
#include "layer.h"
#include "park.h"
#include "timer.h"
#include "tree.h"

static lctx background = {.head = {.refs = 1, .kind = LCTX_KIND_BACKGROUND}};
static lctx todo = {.head = {.refs = 1, .kind = LCTX_KIND_TODO}};

lctx *lctx_background(void)
{
    return &background;
}

lctx *lctx_todo(void)
{
    return &todo;
}

lctx *lctx__ended(void)
{
    static lctx_scope ended = {.ctx.head = {.refs = 1, .kind = LCTX_KIND_CANCEL, .state = LCTX_CANCELED}};
    return &ended.ctx;
}

/* ---- Constructors ---------------------------------------------------------------------------------------- */

static void *invalid(void)
{
    errno = EINVAL;
    return NULL;
}

/* Memory for a context of this kind over `parent`, with a reference to that. */
static void *new_context(size_t size, lctx_kind kind, lctx *parent)
{
    lctx *ctx = malloc(size);
    if (ctx == NULL)
        return NULL;
    *ctx = (lctx){.head = {.refs = 1, .kind = (uint8_t)kind}};
    if (parent) {
        ctx->parent = lctx_ref(parent);
        ctx->layer = parent->layer;
    }
    return ctx;
}

static void init_scope(lctx_scope *scope, lctx_scope *limit)
{
    scope->ctx.at.limit = limit;
    scope->items = NULL;
    scope->reason = NULL;
    scope->shades = 0;
    scope->traits = 0;
    scope->slot = -1;
    atomic_init(&scope->watched, false);
}

lctx *lctx_with_cancel(lctx *parent)
{
    if (parent == NULL)
        return invalid();
    lctx_scope *scope = new_context(sizeof *scope, LCTX_KIND_CANCEL, parent);
    if (scope == NULL)
        return NULL;
    init_scope(scope, lctx__limit_of(parent));
    lctx__plant(scope);
    return &scope->ctx;
}

static lctx *new_deadline(lctx *parent, lctx_ns when, lctx_ns now, double unix_time, const lctx_any *cause)
{
    lctx_reason *reason = NULL;
    if (cause && cause->type != LCTX_NIL && !(reason = lctx__reason_new(cause)))
        return NULL;
    size_t size = sizeof(lctx_deadline_scope) + (reason ? sizeof reason : 0);
    lctx_deadline_scope *deadline = new_context(size, LCTX_KIND_DEADLINE, parent);
    if (deadline == NULL) {
        if (reason && cause->type == LCTX_POINTER)
            reason->value.of.drop = NULL; /* the caller keeps it */
        lctx__reason_unref(reason);
        errno = ENOMEM;
        return NULL;
    }
    init_scope(&deadline->scope, &deadline->scope);
    deadline->when = when;
    atomic_init(&deadline->unix_time, unix_time);
    if (reason) {
        deadline->scope.traits = LCTX_WITH_CAUSE;
        deadline->causes[0] = reason;
    }
    lctx__plant(&deadline->scope);
    if (when <= now)
        lctx__timer_expire(deadline);
    else
        lctx__timer_arm(deadline, now);
    return &deadline->scope.ctx;
}

/* Whether the deadline that holds for `parent` is at `when` or `unix_time`, or before. */
static bool parent_is_sooner(const lctx *parent, lctx_ns when, double unix_time)
{
    lctx_scope *limit = lctx__limit_of(parent);
    if (limit == NULL)
        return false;
    if (limit->ctx.head.kind == LCTX_KIND_DEADLINE) {
        lctx_deadline_scope *deadline = (lctx_deadline_scope *)limit;
        double theirs = atomic_load_explicit(&deadline->unix_time, memory_order_relaxed);
        /* Two points in time are compared as such: between two readings of the clocks anything may happen. */
        if (!isnan(unix_time) && !isnan(theirs))
            return theirs <= unix_time;
        return deadline->when <= when;
    }
    lctx_custom_scope *custom = (lctx_custom_scope *)limit;
    double theirs;
    if (!custom->methods->deadline || !custom->methods->deadline(custom->self, &theirs))
        return false;
    return theirs <= (isnan(unix_time) ? lctx_now() + lctx__seconds(when - lctx__monotonic()) : unix_time);
}

/* A context whose cause will never be used: it was taken over all the same. */
static lctx *without_deadline(lctx *parent, const lctx_any *cause)
{
    lctx *ctx = lctx_with_cancel(parent);
    if (ctx && cause && cause->type == LCTX_POINTER && cause->of.drop)
        cause->of.drop(cause->as.pointer);
    return ctx;
}

/* The instant `span` after now, within what can be told. */
static lctx_ns instant_after(lctx_ns now, lctx_ns span)
{
    if (span < -now)
        return 0;
    return span > LCTX_NEVER - 1 - now ? LCTX_NEVER - 1 : now + span;
}

/* A point in time and its instant are told apart by less than this: two steps of a double in our days. The
 * error goes to the side on which a deadline that was seen to pass is never still live. */
#define CLOCK_ERROR 5e-7

lctx *lctx_with_deadline(lctx *parent, double unix_time, const lctx_any *cause)
{
    if (parent == NULL || isnan(unix_time))
        return invalid();
    if (unix_time == INFINITY)
        return without_deadline(parent, cause);
    lctx_ns now = lctx__monotonic();
    lctx_ns when = instant_after(now, lctx__ns(unix_time - lctx_now() - CLOCK_ERROR));
    if (parent_is_sooner(parent, when, unix_time))
        return without_deadline(parent, cause);
    return new_deadline(parent, when, now, unix_time, cause);
}

lctx *lctx_with_timeout(lctx *parent, double seconds, const lctx_any *cause)
{
    if (parent == NULL || isnan(seconds))
        return invalid();
    if (seconds == INFINITY)
        return without_deadline(parent, cause);
    lctx_ns now = lctx__monotonic(), when = instant_after(now, lctx__ns(seconds));
    if (parent_is_sooner(parent, when, NAN))
        return without_deadline(parent, cause);
    return new_deadline(parent, when, now, NAN, cause);
}

lctx *lctx__with_entries(lctx *parent, lctx_kind kind, size_t n, const lctx_entry *entries)
{
    size_t size = sizeof(lctx) + sizeof(lctx_layer) + sizeof(lctx_entry) * n;
    lctx *ctx = n <= UINT32_MAX ? new_context(size, kind, parent) : NULL;
    if (ctx == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    lctx_layer *layer = (lctx_layer *)(ctx + 1);
    if (!lctx__layer_init(layer, parent->layer, n, entries)) {
        lctx_unref(parent);
        free(ctx);
        errno = ENOMEM;
        return NULL;
    }
    ctx->layer = layer;
    ctx->at.scope = lctx__scope_of(parent);
    lctx__shade_added(ctx);
    return ctx;
}

lctx *lctx_with_value(lctx *parent, const void *key, lctx_any value)
{
    if (parent == NULL || key == NULL)
        return invalid();
    value.reserved = 0;
    const lctx_entry entry = {key, value};
    return lctx__with_entries(parent, LCTX_KIND_VALUE, 1, &entry);
}

lctx *lctx_with_values(lctx *parent, size_t n, const lctx_entry *entries)
{
    if (parent == NULL)
        return invalid();
    for (size_t i = 0; i < n; i++)
        if (entries[i].key == NULL || entries[i].value.reserved != 0)
            return invalid();
    return lctx__with_entries(parent, LCTX_KIND_VALUES, n, entries);
}

static lctx_any name_content(const char *name)
{
    return (lctx_any){.type = LCTX_STRING, .as.string = name, .of.length = strlen(name)};
}

lctx *lctx_with_named_value(lctx *parent, const char *name, lctx_any value)
{
    if (parent == NULL || name == NULL)
        return invalid();
    const lctx_any content = name_content(name);
    lctx_key *key = lctx__key_of(&content, true);
    if (key == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    value.reserved = LCTX_ENTRY_KEYED;
    const lctx_entry entry = {key, value};
    lctx *ctx = lctx__with_entries(parent, LCTX_KIND_VALUE, 1, &entry);
    lctx__key_unref(key);
    return ctx;
}

lctx *lctx_without_cancel(lctx *parent)
{
    if (parent == NULL)
        return invalid();
    lctx *ctx = new_context(sizeof *ctx, LCTX_KIND_WITHOUT_CANCEL, parent);
    if (ctx)
        lctx__shade_added(ctx);
    return ctx;
}

static bool merge_layers(lctx_merge_scope *merge, size_t n, lctx *const *parents)
{
    const lctx_layer **layers = malloc(sizeof *layers * n);
    if (layers == NULL)
        return false;
    for (size_t i = 0; i < n; i++)
        layers[i] = parents[i]->layer;
    bool done = lctx__layer_merge(n, layers, &merge->scope.ctx.layer, &merge->own_layer);
    free(layers);
    return done;
}

lctx *lctx__merge(size_t n, lctx *const *parents, lctx *soonest)
{
    lctx_merge_scope *merge = new_context(sizeof *merge + sizeof(lctx_arm) * n, LCTX_KIND_MERGE, NULL);
    if (merge == NULL || !merge_layers(merge, n, parents)) {
        free(merge);
        errno = ENOMEM;
        return NULL;
    }
    init_scope(&merge->scope, soonest ? lctx__limit_of(soonest) : NULL);
    merge->count = n;
    for (size_t i = 0; i < n; i++)
        merge->arms[i] = (lctx_arm){.head = {.kind = LCTX_KIND_ARM},
                                    .source = lctx__scope_of(parents[i]),
                                    .merge = &merge->scope,
                                    .parent = lctx_ref(parents[i])};
    lctx__plant(&merge->scope);
    return &merge->scope.ctx;
}

lctx *lctx_merge(size_t n, lctx *const *parents)
{
    lctx *soonest = NULL;
    double first = INFINITY;
    for (size_t i = 0; i < n; i++) {
        double time;
        if (parents[i] == NULL)
            return invalid();
        if (lctx__deadline(parents[i], &time) && (soonest == NULL || time < first)) {
            soonest = parents[i];
            first = time;
        }
    }
    return n > 0 ? lctx__merge(n, parents, soonest) : invalid();
}

lctx *lctx_custom(lctx *source, const lctx_methods *methods, void *self)
{
    if (methods == NULL)
        return invalid();
    lctx_custom_scope *custom = new_context(sizeof *custom, LCTX_KIND_CUSTOM, source);
    lctx_layer *layer = custom ? lctx__layer_of_custom(&custom->scope.ctx) : NULL;
    if (layer == NULL) {
        if (custom)
            lctx_unref(source);
        free(custom);
        errno = ENOMEM;
        return NULL;
    }
    init_scope(&custom->scope, &custom->scope);
    custom->methods = methods;
    custom->self = self;
    custom->own_layer = layer;
    custom->scope.ctx.layer = layer;
    custom->scope.traits = source && lctx_can_end(source) ? 0 : LCTX_UNENDING;
    lctx__plant(&custom->scope);
    return &custom->scope.ctx;
}

/* ---- Ending ------------------------------------------------------------------------------------------------ */

void lctx_cancel(lctx *ctx)
{
    if (lctx__is_scope(ctx))
        lctx__end((lctx_scope *)ctx, LCTX_CANCELED, NULL);
}

int lctx_cancel_cause(lctx *ctx, const lctx_any *cause)
{
    lctx_reason *reason = NULL;
    int error = 0;
    if (cause && cause->type != LCTX_NIL && !(reason = lctx__reason_new(cause)))
        error = ENOMEM;
    if (lctx__is_scope(ctx))
        lctx__end((lctx_scope *)ctx, LCTX_CANCELED, reason);
    lctx__reason_unref(reason);
    return error;
}

/* ---- Answers ----------------------------------------------------------------------------------------------- */

static lctx_deadline_scope *deadline_of(const lctx_scope *scope)
{
    lctx_scope *limit = scope->ctx.at.limit;
    bool timed = limit && limit->ctx.head.kind == LCTX_KIND_DEADLINE;
    return timed ? (lctx_deadline_scope *)limit : NULL;
}

/* Ends what the clock says has ended; then the state of the scope. */
LCTX_APART static lctx_err_t look_at_clock(lctx_scope *scope, lctx_deadline_scope *deadline)
{
    if (deadline && deadline->when <= lctx__monotonic())
        lctx__timer_expire(deadline);
    return lctx__state(scope);
}

LCTX_APART static lctx_err_t run_timers(lctx_scope *scope)
{
    lctx__timers_run();
    return lctx__state(scope);
}

static inline lctx_err_t err_of(lctx_scope *scope)
{
    lctx_err_t err = lctx__state(scope);
    if (err != LCTX_LIVE)
        return err;
    if (atomic_load_explicit(&lctx__timers_unattended, memory_order_relaxed))
        return run_timers(scope);
    lctx_deadline_scope *deadline = deadline_of(scope);
    if (deadline && atomic_load_explicit(&deadline->scope.watched, memory_order_relaxed))
        return look_at_clock(scope, deadline);
    return LCTX_LIVE;
}

lctx_err_t lctx_err(lctx *ctx)
{
    lctx_scope *scope = lctx__scope_of(ctx);
    return scope ? err_of(scope) : LCTX_LIVE;
}

bool lctx_can_end(const lctx *ctx)
{
    const lctx_scope *scope = lctx__scope_of(ctx);
    return scope != NULL && !(scope->traits & LCTX_UNENDING);
}

/* A timeout becomes a point in time when somebody asks; the first answer stays. */
static double unix_time_of(lctx_deadline_scope *deadline)
{
    double time = atomic_load_explicit(&deadline->unix_time, memory_order_relaxed);
    if (!isnan(time))
        return time;
    double left = lctx__seconds(deadline->when - lctx__monotonic());
    double now = left + lctx_now() + CLOCK_ERROR;
    if (atomic_compare_exchange_strong(&deadline->unix_time, &time, now))
        return now;
    return time;
}

bool lctx__deadline(lctx *ctx, double *unix_time)
{
    lctx_scope *limit = lctx__limit_of(ctx);
    if (limit == NULL)
        return false;
    if (limit->ctx.head.kind == LCTX_KIND_CUSTOM) {
        lctx_custom_scope *custom = (lctx_custom_scope *)limit;
        return custom->methods->deadline && custom->methods->deadline(custom->self, unix_time);
    }
    *unix_time = unix_time_of((lctx_deadline_scope *)limit);
    return true;
}

static void watch(lctx_deadline_scope *deadline)
{
    if (!atomic_load_explicit(&deadline->scope.watched, memory_order_relaxed))
        atomic_store_explicit(&deadline->scope.watched, true, memory_order_relaxed);
}

bool lctx_deadline(lctx *ctx, double *unix_time)
{
    lctx_scope *scope = lctx__scope_of(ctx);
    if (scope && deadline_of(scope))
        watch(deadline_of(scope));
    return lctx__deadline(ctx, unix_time);
}

double lctx_remaining(lctx *ctx)
{
    lctx_scope *scope = lctx__scope_of(ctx);
    lctx_deadline_scope *deadline = scope ? deadline_of(scope) : NULL;
    if (deadline) {
        watch(deadline);
        lctx_ns left = deadline->when - lctx__monotonic();
        if (left > 0)
            return lctx__seconds(left);
        lctx__timer_expire(deadline);
        return 0;
    }
    double time;
    if (!lctx__deadline(ctx, &time))
        return INFINITY;
    time -= lctx_now();
    return time > 0 ? time : 0;
}

bool lctx_cause(lctx *ctx, lctx_any *cause)
{
    lctx_scope *scope = lctx__scope_of(ctx);
    if (scope == NULL || lctx_err(ctx) == LCTX_LIVE || scope->reason == NULL)
        return false;
    *cause = scope->reason->value;
    return true;
}

/* A double, so that it reads as one. */
static int print_number(char *buffer, size_t size, double number)
{
    char text[32];
    snprintf(text, sizeof text, "%.14g", number);
    return snprintf(buffer, size, text[strspn(text, "-0123456789")] ? "%s" : "%s.0", text);
}

static size_t copy_text(char *buffer, size_t size, const char *text, size_t length)
{
    if (size > 0) {
        size_t part = length < size ? length : size - 1;
        memcpy(buffer, text, part);
        buffer[part] = '\0';
    }
    return length;
}

size_t lctx_cause_text(lctx *ctx, char *buffer, size_t size)
{
    lctx_any cause;
    lctx_err_t err = lctx_err(ctx);
    const lctx_text *text = NULL;
    if (lctx_cause(ctx, &cause))
        text = atomic_load_explicit(&lctx__scope_of(ctx)->reason->text, memory_order_acquire);
    else
        cause.type = LCTX_NIL;
    switch (cause.type) {
    case LCTX_STRING:
        return copy_text(buffer, size, cause.as.string, cause.of.length);
    case LCTX_BOOLEAN:
        return (size_t)snprintf(buffer, size, "%s", cause.as.boolean ? "true" : "false");
    case LCTX_INTEGER:
        return (size_t)snprintf(buffer, size, "%lld", (long long)cause.as.integer);
    case LCTX_NUMBER:
        return (size_t)print_number(buffer, size, cause.as.number);
    case LCTX_POINTER:
        return (size_t)snprintf(buffer, size, "pointer: %p", cause.as.pointer);
    }
    if (text)
        return copy_text(buffer, size, text->bytes, text->length);
    return copy_text(buffer, size, lctx_strerror(err), strlen(lctx_strerror(err)));
}

static bool ask_methods(void *key, lctx *ctx, lctx_any *value)
{
    lctx_custom_scope *custom = (lctx_custom_scope *)ctx;
    return custom->methods->value && custom->methods->value(custom->self, key, value);
}

bool lctx_value(lctx *ctx, const void *key, lctx_any *value)
{
    lctx_any answer;
    const lctx_any *found = lctx__find(ctx, key, ask_methods, (void *)key, &answer);
    if (found == NULL)
        return false;
    *value = *found;
    value->reserved = 0;
    return true;
}

bool lctx_named_value(lctx *ctx, const char *name, lctx_any *value)
{
    const lctx_any content = name_content(name);
    lctx_key *key = lctx__key_of(&content, false);
    bool found = key && lctx_value(ctx, key, value);
    lctx__key_unref(key);
    return found;
}

const char *lctx_strerror(lctx_err_t err)
{
    static const char *const texts[] = {"", "context canceled", "context deadline exceeded"};
    return texts[err];
}

/* ---- Waiting ----------------------------------------------------------------------------------------------- */

LCTX_APART static void sleep_for(double seconds)
{
    lctx_ns until = lctx__instant(seconds);
    for (lctx_ns now; (now = lctx__monotonic()) < until;) {
        struct timespec time = lctx__timespec(until - now);
        nanosleep(&time, NULL);
    }
}

static void count_waiter(lctx_scope *scope, int change)
{
    lctx_stripe *stripe = lctx__stripe_lock(scope);
    stripe->waiters += change;
    lctx__stripe_unlock(stripe);
}

LCTX_APART static bool block_for(lctx_scope *scope, double seconds)
{
    lctx_ns until = lctx__instant(seconds);
    bool ended;
    count_waiter(scope, 1);
    do
        ended = lctx__park_until_ended(scope, lctx__timers_attend(until)) ||
                look_at_clock(scope, deadline_of(scope)) != LCTX_LIVE;
    while (!ended && lctx__monotonic() < until);
    count_waiter(scope, -1);
    return ended;
}

bool lctx_wait(lctx *ctx, double seconds)
{
    lctx_scope *scope = lctx__scope_of(ctx);
    if (scope && err_of(scope) != LCTX_LIVE)
        return true;
    if (scope && seconds > 0)
        return block_for(scope, seconds);
    if (scope)
        return deadline_of(scope) && look_at_clock(scope, deadline_of(scope)) != LCTX_LIVE;
    if (seconds > 0)
        sleep_for(seconds);
    return false;
}
