/* SPDX-License-Identifier: MIT
 *
 * Bytes -> operations of the core, each done by the library and by the model in tree_model.h; after each step both
 * must agree in everything that can be asked. The clock is moved by the input, and there is no timer thread.
 */
// compile: -Dpthread_create=no_thread
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>

#include "../../csrc/core/context.h"
#include "../../csrc/core/timer.h"
#include "tree_model.h"
#include "tree_values.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int no_thread(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg);

/* Deadlines are a tick apart, and the clock stands between them: so it is always clear what is due. */
enum { STEP = 1 << 23, APART = 1 << 15, HALF_TICK = 1 << 13 };

/* ---- The clock, and the thread that is none ---------------------------------------------------------------- */

static const double wall_ahead = 4096; /* small, so that points in time are exact enough */

static lctx_ns fuzz_monotonic(void)
{
    return model.now;
}

static double fuzz_wall(void)
{
    return wall_ahead + (double)model.now / 1e9;
}

int no_thread(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
    (void)attr, (void)run, (void)arg;
    *thread = pthread_self();
    return model.unattended ? EAGAIN : 0;
}

/* ---- The input ----------------------------------------------------------------------------------------------- */

static const uint8_t *input, *input_end;

static unsigned next_byte(void)
{
    return input < input_end ? *input++ : 0;
}

/* A slot that holds a context, if there is one close to what the input says. */
static int next_slot(void)
{
    int first = (int)(next_byte() % SLOTS);
    for (int i = 0; i < SLOTS; i++)
        if (model.slots[(first + i) % SLOTS] != NONE)
            return (first + i) % SLOTS;
    return NONE;
}

/* A node: what a slot holds, else the root. */
static int next_node(void)
{
    int slot = next_slot();
    return slot == NONE ? 0 : model.slots[slot];
}

/* 0 (nil, no cause) now and then. */
static int next_value(void)
{
    bool nil = next_byte() % 8 == 0 || values_made == VALUES_MADE - 1;
    int number = nil ? 0 : ++values_made;
    pointers_made += number % 3 == 2;
    return number;
}

/* ---- Callbacks ------------------------------------------------------------------------------------------------ */

static int log_of_library[LOG], log_of_library_count;

static void on_end(lctx_after *after, void *arg)
{
    (void)after;
    callback *c = arg;
    AGREE(log_of_library_count < LOG);
    log_of_library[log_of_library_count++] = (int)(c - model.callbacks);
    if (c->cancel != NONE && model.slots[c->cancel] != NONE)
        lctx_cancel(model.nodes[model.slots[c->cancel]].ctx);
}

static void do_register(void)
{
    int index = next_node();
    unsigned dice = next_byte();
    if (model.callback_count == CALLBACKS)
        return;
    const node *n = &model.nodes[index];
    callback *c = &model.callbacks[model.callback_count++];
    bool live = node_err(n) == LCTX_LIVE;
    *c = (callback){.scope = n->scope, .cancel = dice % 4 ? NONE : (int)(dice / 4 % SLOTS), .pending = live};
    if (n->scope != NONE)
        c->holds = node_ends_by_itself(&model.nodes[n->scope]);
    c->handle = lctx_after_func(n->ctx, on_end, c);
    AGREE(c->handle != NULL);
    if (c->holds)
        model.nodes[c->scope].refs++;
    if (!live)
        model_call((int)(c - model.callbacks));
}

static bool model_stop(callback *c)
{
    bool stopped = c->pending;
    c->pending = false;
    if (stopped && c->holds)
        model_unref(c->scope);
    return stopped;
}

static callback *next_callback(void)
{
    unsigned i = next_byte();
    callback *c = model.callback_count ? &model.callbacks[i % (unsigned)model.callback_count] : NULL;
    return c && c->handle ? c : NULL;
}

static void stop(callback *c)
{
    bool stopped = lctx_after_stop(c->handle);
    AGREE(stopped == model_stop(c));
}

static void do_stop(void)
{
    callback *c = next_callback();
    if (c)
        stop(c);
}

static void do_free_handle(void)
{
    callback *c = next_callback();
    if (c == NULL || c->scope == NONE)
        return;
    lctx_after_free(c->handle);
    c->handle = NULL;
}

/* ---- Deriving ------------------------------------------------------------------------------------------------- */

static void drop_slot(int slot)
{
    int index = model.slots[slot];
    model.slots[slot] = NONE;
    if (index == NONE)
        return;
    lctx_unref(model.nodes[index].ctx);
    model_unref(index);
}

/* The model's node for what was made. */
static node *add(kind kind, int count, const int *above, lctx *ctx)
{
    AGREE(ctx != NULL);
    return model_add(kind, count, above, ctx);
}

/* Into a slot, once the node is complete: what was there goes, and its callbacks run. */
static void keep(node *n)
{
    int slot = (int)(next_byte() % SLOTS);
    drop_slot(slot);
    model.slots[slot] = (int)(n - model.nodes);
}

static void do_cancel_scope(void)
{
    int parent = next_node();
    keep(add(CANCEL, 1, &parent, lctx_with_cancel(model.nodes[parent].ctx)));
}

static void do_cut(void)
{
    int parent = next_node();
    keep(add(CUT, 1, &parent, lctx_without_cancel(model.nodes[parent].ctx)));
}

static int64_t next_moment(int64_t steps)
{
    return model.now + steps * STEP + (int64_t)model.node_count * APART + HALF_TICK;
}

static void set_deadline(node *n, int64_t when, int cause, double span)
{
    n->limit = (int)(n - model.nodes);
    n->moment = when;
    n->on_expiry = cause;
    n->made_at = span > 0 ? model.now : 0;
    n->span = span;
    if (n->err == LCTX_LIVE && when <= model.now) {
        n->err = LCTX_DEADLINE_EXCEEDED;
        n->cause = cause;
    }
}

/* Without a deadline of its own the cause is taken all the same, and never used. */
static void do_deadline_at(int parent, int64_t when, double seconds, bool as_point)
{
    int number = next_value();
    lctx_any cause = value_of(number);
    lctx *above = model.nodes[parent].ctx;
    int64_t theirs = node_deadline(&model.nodes[parent]);
    bool own = seconds < INFINITY && !(theirs && theirs <= when);
    lctx *ctx =
        as_point ? lctx_with_deadline(above, lctx_now() + seconds, &cause) : lctx_with_timeout(above, seconds, &cause);
    AGREE(ctx != NULL);
    node *n = add(own ? DEADLINE : CANCEL, 1, &parent, ctx);
    if (own)
        set_deadline(n, when, number, as_point ? 0 : seconds);
    keep(n);
}

static void do_deadline(void)
{
    static const double odd[] = {INFINITY, -INFINITY, 0, -1};
    int parent = next_node();
    unsigned dice = next_byte();
    double seconds = odd[dice % 4];
    int64_t when = isinf(seconds) ? (seconds > 0 ? INT64_MAX : 1) : model.now + (int64_t)(seconds * 1e9);
    if (dice % 16 > 3) {
        when = next_moment(dice / 16);
        seconds = (double)(when - model.now) / 1e9;
    }
    do_deadline_at(parent, when, seconds, next_byte() % 2);
}

/* The deadline of the parent itself, as it was told or as the same span at the same time: the parent's wins. */
static void do_equal_deadline(void)
{
    int parent = next_node();
    const node *n = &model.nodes[parent];
    int64_t theirs = node_deadline(n);
    double time;
    if (theirs <= model.now || model.nodes[n->limit].kind != DEADLINE)
        return;
    const node *limit = &model.nodes[n->limit];
    if (next_byte() % 2 && limit->made_at == model.now) {
        keep(add(CANCEL, 1, &parent, lctx_with_timeout(n->ctx, limit->span, NULL)));
        return;
    }
    AGREE(lctx_deadline(n->ctx, &time));
    model.nodes[n->limit].watched = true;
    keep(add(CANCEL, 1, &parent, lctx_with_deadline(n->ctx, time, NULL)));
}

static int next_entries(entry *ours, lctx_entry *theirs, int count)
{
    static char texts[ENTRIES][16];
    for (int i = 0; i < count; i++) {
        ours[i] = (entry){(int)(next_byte() % KEYS), next_value()};
        theirs[i] = (lctx_entry){&keys[ours[i].key], value_of(ours[i].value)};
        if (theirs[i].value.type == LCTX_STRING)
            theirs[i].value.as.string = memcpy(texts[i], theirs[i].value.as.string, 16);
    }
    return count;
}

static void do_values(void)
{
    entry ours[ENTRIES];
    lctx_entry theirs[ENTRIES];
    int parent = next_node();
    unsigned dice = next_byte();
    bool one = dice % 2;
    int count = next_entries(ours, theirs, one ? 1 : (int)(dice / 2 % (ENTRIES + 1)));
    lctx *above = model.nodes[parent].ctx;
    lctx *ctx =
        one ? lctx_with_value(above, theirs[0].key, theirs[0].value) : lctx_with_values(above, (size_t)count, theirs);
    node *n = add(VALUES, 1, &parent, ctx);
    n->entry_count = count;
    memcpy(n->entries, ours, sizeof *ours * (size_t)count);
    keep(n);
}

static void do_merge(void)
{
    int above[PARENTS], count = 1 + (int)(next_byte() % PARENTS);
    lctx *parents[PARENTS];
    for (int i = 0; i < count; i++) {
        above[i] = next_node();
        parents[i] = model.nodes[above[i]].ctx;
    }
    keep(add(MERGE, count, above, lctx_merge((size_t)count, parents)));
}

static bool tell_deadline(void *self, double *time)
{
    const node *n = self;
    *time = wall_ahead + (double)n->moment / 1e9;
    return n->moment != 0;
}

static bool tell_value(void *self, const void *key, lctx_any *value)
{
    const node *n = self;
    if (n->entry_count == 0 || key != &keys[n->entries[0].key])
        return false;
    *value = (lctx_any){.type = LCTX_INTEGER, .as.integer = n->entries[0].value};
    return true;
}

static int customs_dropped;

static void drop_custom(void *self)
{
    (void)self;
    customs_dropped++;
}

static void do_custom(void)
{
    static const lctx_methods methods = {tell_deadline, tell_value, drop_custom};
    unsigned dice = next_byte();
    int parent = next_node(), count = dice % 4 ? 1 : 0;
    lctx *source = count ? model.nodes[parent].ctx : NULL;
    int64_t moment = dice / 4 % 2 ? next_moment(dice / 8 % 16) : 0;
    node *n = add(CUSTOM, count, &parent, lctx_custom(source, &methods, &model.nodes[model.node_count]));
    n->moment = moment;
    n->entry_count = dice / 128;
    n->entries[0] = (entry){(int)(next_byte() % KEYS), 3 * (VALUES_MADE + model.node_count)};
    keep(n);
}

/* ---- Ending, asking, waiting ---------------------------------------------------------------------------------- */

static void do_drop(void)
{
    int slot = next_slot();
    if (slot != NONE)
        drop_slot(slot);
}

static void do_cancel(void)
{
    int index = next_node(), number = next_value();
    const lctx_any cause = value_of(number);
    AGREE(lctx_cancel_cause(model.nodes[index].ctx, &cause) == 0);
    model_cancel(index, number);
}

static void run_timers(void)
{
    lctx__timers_run();
    model_run_timers();
}

static void do_pass(void)
{
    model.now += (int64_t)(next_byte() % 32) * STEP;
    run_timers();
}

static bool is_live(int index)
{
    return node_err(&model.nodes[index]) == LCTX_LIVE;
}

static void look_by_err(int index)
{
    const node *n = &model.nodes[index];
    lctx_err_t err = lctx_err(n->ctx);
    if (n->scope != NONE && is_live(index)) {
        if (model.unattended)
            model_run_timers();
        else if (n->limit != NONE && model.nodes[n->limit].watched)
            model_look(index);
    }
    AGREE(err == node_err(n));
}

static void look_by_remaining(int index)
{
    const node *n = &model.nodes[index];
    double left = lctx_remaining(n->ctx);
    int64_t deadline = node_deadline(n);
    if (n->scope != NONE && n->limit != NONE)
        model.nodes[n->limit].watched = true;
    model_look(index);
    if (deadline == 0 && (n->limit == NONE || model.nodes[n->limit].kind == CUSTOM))
        AGREE(isinf(left));
    else
        AGREE(deadline > model.now ? fabs(left - (double)(deadline - model.now) / 1e9) < 2e-6 : left == 0);
}

static void look_by_wait(int index)
{
    static const double spans[] = {0, -1, -INFINITY, NAN};
    const node *n = &model.nodes[index];
    bool ended = lctx_wait(n->ctx, spans[next_byte() % 4]);
    if (n->scope != NONE) {
        if (model.unattended)
            model_run_timers();
        if (is_live(index))
            model_look(index);
    }
    AGREE(ended == !is_live(index));
}

/* Time passes, and somebody asks before the timer thread has come to it. */
static void do_look(void)
{
    static void (*const ways[])(int) = {look_by_err, look_by_remaining, look_by_wait};
    int index = next_node();
    unsigned dice = next_byte();
    model.now += (int64_t)(dice / 4 % 16) * STEP;
    model.nodes[index].refs++; /* what looks holds on to it here; in the library the slot does */
    ways[dice % 3](index);
    model_unref(index);
    run_timers();
}

static void check_deadline(const node *n, bool has, double time)
{
    int64_t deadline = node_deadline(n);
    AGREE(has == (deadline != 0));
    if (deadline > 1) /* 1: endlessly long ago */
        AGREE(fabs(time - wall_ahead - (double)deadline / 1e9) < 2e-6);
}

static void do_ask_deadline(void)
{
    const node *n = &model.nodes[next_node()];
    double time = 0;
    bool has = lctx_deadline(n->ctx, &time);
    if (n->limit != NONE)
        model.nodes[n->limit].watched = true;
    check_deadline(n, has, time);
}

static void do_notify(void)
{
    int index = next_node();
    lctx_notifier *notifier = lctx_notifier_new(model.nodes[index].ctx);
    AGREE(notifier != NULL);
    struct pollfd fd = {.fd = lctx_notifier_fd(notifier), .events = POLLIN};
    AGREE((poll(&fd, 1, 0) == 1) == !is_live(index));
    lctx_notifier_free(notifier);
}

static void do_wrong(void)
{
    lctx *ctx = model.nodes[next_node()].ctx;
    errno = 0;
    switch (next_byte() % 6) {
    case 0:
        AGREE(lctx_with_timeout(ctx, NAN, NULL) == NULL && errno == EINVAL);
        break;
    case 1:
        AGREE(lctx_with_deadline(ctx, NAN, NULL) == NULL && errno == EINVAL);
        break;
    case 2:
        AGREE(lctx_merge(2, (lctx *[]){ctx, NULL}) == NULL && errno == EINVAL);
        break;
    case 3:
        AGREE(lctx_with_value(ctx, NULL, value_of(0)) == NULL && errno == EINVAL);
        break;
    case 4:
        AGREE(lctx_custom(ctx, NULL, NULL) == NULL && errno == EINVAL);
        break;
    default:
        AGREE(lctx_after_func(ctx, NULL, NULL) == NULL && errno == EINVAL);
    }
}

/* ---- One input -------------------------------------------------------------------------------------------------- */

static void check_values(const node *n, int key)
{
    lctx_any any;
    const entry *found = model_find((int)(n - model.nodes), key);
    bool has = lctx_value(n->ctx, &keys[key], &any);
    AGREE(has == (found != NULL) && (!has || number_of(&any) == found->value));
}

static void check_node(const node *n, int key)
{
    lctx_any cause;
    double time = 0;
    bool timed = lctx__deadline(n->ctx, &time); /* as lctx_deadline, but that nobody has asked then */
    check_deadline(n, timed, time);
    AGREE(lctx_err(n->ctx) == node_err(n));
    AGREE(lctx_can_end(n->ctx) == node_can_end(n));
    bool has = lctx_cause(n->ctx, &cause);
    AGREE(has == (node_cause(n) != 0) && (!has || number_of(&cause) == node_cause(n)));
    check_values(n, key);
}

static void check_all(int key)
{
    lctx_stats stats, expected = model_stats();
    lctx_get_stats(&stats);
    AGREE(stats.contexts == expected.contexts && stats.live == expected.live);
    AGREE(stats.timers == expected.timers && stats.callbacks == expected.callbacks && stats.waiters == 0);
    AGREE(log_of_library_count == model.log_count);
    AGREE(memcmp(log_of_library, model.log, sizeof *model.log * (size_t)model.log_count) == 0);
    for (int i = 0; i < SLOTS; i++)
        if (model.slots[i] != NONE)
            check_node(&model.nodes[model.slots[i]], key);
}

static void begin(void)
{
    static const lctx_clock clock = {fuzz_monotonic, fuzz_wall};
    int64_t now = model.now ? model.now + STEP : INT64_C(1) << 50; /* never back, as the wheel */
    memset(&model, 0, sizeof model);
    model.now = now;
    model.unattended = next_byte() % 4 == 0;
    model.nodes[0] = (node){.ctx = lctx_background(), .refs = 1, .scope = NONE, .limit = NONE};
    model.node_count = 1;
    memset(model.slots, 0xff, sizeof model.slots);
    values_made = pointers_made = pointers_dropped = customs_dropped = log_of_library_count = 0;
    lctx__clock = &clock;
    lctx__timers_before_fork(); /* whatever thread there was is gone */
    lctx__timers_after_fork(true);
    atomic_store(&lctx__timers_unattended, false);
}

/* What nobody else can end any more is ended here, so that what its callbacks hold goes. */
static void finish(void)
{
    for (int i = 0; i < model.callback_count; i++) {
        callback *c = &model.callbacks[i];
        if (c->handle)
            stop(c);
        lctx_after_free(c->handle);
        if (c->pending && c->handle == NULL) {
            lctx_cancel(model.nodes[c->scope].ctx);
            model_cancel(c->scope, 0);
        }
    }
    for (int i = 0; i < SLOTS; i++)
        drop_slot(i);
    check_all(0);
    lctx_stats expected = model_stats();
    AGREE(expected.contexts == 0 && pointers_dropped == pointers_made);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const operations[])(void) = {
        do_cancel_scope, do_cancel_scope, do_cut,   do_deadline, do_deadline, do_equal_deadline,
        do_values,       do_values,       do_merge, do_merge,    do_custom,   do_drop,
        do_drop,         do_cancel,       do_pass,  do_look,     do_look,     do_ask_deadline,
        do_register,     do_register,     do_stop,  do_notify,   do_wrong,    do_free_handle,
    };
    input = data;
    input_end = data + size;
    begin();
    while (input < input_end && model.node_count < NODES) {
        operations[next_byte() % (sizeof operations / sizeof *operations)]();
        check_all((int)(next_byte() % KEYS));
    }
    finish();
    return 0;
}
