/* SPDX-License-Identifier: MIT
 *
 * The rows of the benchmark (rows.lua) in the C core.
 *
 *   core            runs all of them once, for a look
 *   core list       names the runs
 *   core RUN        runs one: each line is a row, a tab, and nanoseconds (or bytes)
 *
 * A figure comes out of one loop of MIN_NS or more. Contexts are given back inside of it, but where a note in
 * rows.lua says otherwise.
 */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "lcontext.h"

enum { SIBLINGS = 100000, LAYERS = 100, MAX_DEPTH = 1000, MAX_THREADS = 64, OF_A_KIND = 200000 };

#define HOUR    3600.0
#define MIN_NS  25e6
#define LONG_NS 200e6 /* where Go and Lua have a large heap: their collectors are to have their turn */

typedef struct run {
    const char *name;
    void (*measure)(const struct run *);
    long number;
} run;

/* What a loop computes goes here, so that the compiler cannot leave the loop out. */
static volatile long sink;

static double now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static void nap(double seconds)
{
    struct timespec time = {(time_t)seconds, (long)(fmod(seconds, 1) * 1e9)};
    nanosleep(&time, NULL);
}

static void report(const run *run, double value)
{
    printf("%s\t%.3f\n", run->name, value);
}

static void report_part(const run *run, const char *part, double value)
{
    printf("%s:%s\t%.3f\n", run->name, part, value);
}

static void *must(void *made)
{
    if (made == NULL) {
        perror("bench");
        exit(1);
    }
    return made;
}

static lctx **new_array(long n)
{
    return must(calloc((size_t)n, sizeof(lctx *)));
}

/* ---- Loops ----------------------------------------------------------------------------------------------- */

typedef void loop(void *arg, long n);

/* Nanoseconds for one of n turns of the loop, for an n that takes long enough. */
static double per_turn(loop *loop, void *arg, double min_ns)
{
    for (long n = 1;;) {
        double start = now_ns();
        loop(arg, n);
        double ns = now_ns() - start;
        if (ns >= min_ns * 0.8)
            return ns / (double)n;
        n = ns < min_ns / 50 ? n * 10 : (long)((double)n * min_ns / ns * 1.1) + 1;
    }
}

/* The same loop in several threads, each with its part of n. */
typedef struct worker {
    pthread_t thread;
    loop *loop;
    void *arg;
    long n;
} worker;

static void *work(void *arg)
{
    worker *worker = arg;
    worker->loop(worker->arg, worker->n);
    return NULL;
}

static void run_workers(worker *workers, int count)
{
    for (int i = 0; i < count; i++)
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0)
            must(NULL);
    for (int i = 0; i < count; i++)
        pthread_join(workers[i].thread, NULL);
}

typedef struct team {
    int count;
    loop *loop;
    void *arg;
} team;

/* n turns in each of the threads. */
static void in_each(void *arg, long n)
{
    team *team = arg;
    worker workers[MAX_THREADS];
    for (int i = 0; i < team->count; i++)
        workers[i] = (worker){.loop = team->loop, .arg = team->arg, .n = n};
    run_workers(workers, team->count);
}

/* n turns in all, as Go's RunParallel does it. */
static void shared_out(void *arg, long n)
{
    team *team = arg;
    in_each(team, (n + team->count - 1) / team->count);
}

static int processors(void)
{
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count < 1 ? 1 : count > MAX_THREADS ? MAX_THREADS : (int)count;
}

static double in_parallel(loop *loop, void *arg, double min_ns)
{
    team team = {processors(), loop, arg};
    return per_turn(shared_out, &team, min_ns);
}

/* ---- Making and ending one context ----------------------------------------------------------------------- */

static void cancel_loop(void *parent, long n)
{
    for (long i = 0; i < n; i++) {
        lctx *ctx = must(lctx_with_cancel(parent));
        lctx_cancel(ctx);
        lctx_unref(ctx);
    }
}

static void timeout_loop(void *parent, long n)
{
    for (long i = 0; i < n; i++) {
        lctx *ctx = must(lctx_with_timeout(parent, HOUR, NULL));
        lctx_cancel(ctx);
        lctx_unref(ctx);
    }
}

/* What no context under a parent can do without: memory of its size, and a list under a lock, entered and left. */
static void floor_loop(void *unused, long n)
{
    static struct {
        atomic_uchar held;
        struct node {
            struct node *prev, *next;
            char rest[56];
        } first;
    } list = {.first = {&list.first, &list.first, {0}}};
    (void)unused;
    for (long i = 0; i < n; i++) {
        struct node *node = must(malloc(sizeof *node));
        while (atomic_exchange_explicit(&list.held, 1, memory_order_acquire))
            continue;
        node->next = &list.first;
        node->prev = list.first.prev;
        node->prev->next = list.first.prev = node;
        atomic_store_explicit(&list.held, 0, memory_order_release);
        while (atomic_exchange_explicit(&list.held, 1, memory_order_acquire))
            continue;
        node->prev->next = node->next;
        node->next->prev = node->prev;
        atomic_store_explicit(&list.held, 0, memory_order_release);
        free(node);
    }
}

static void measure_floor(const run *run)
{
    report(run, per_turn(floor_loop, NULL, MIN_NS));
}

static lctx *live_parent(void)
{
    return must(lctx_with_cancel(lctx_background()));
}

static void cancel_background(const run *run)
{
    report(run, per_turn(cancel_loop, lctx_background(), MIN_NS));
}

static void cancel_parent(const run *run)
{
    report(run, per_turn(cancel_loop, live_parent(), MIN_NS));
}

static void cancel_siblings(const run *run)
{
    lctx *parent = live_parent();
    for (long i = 0; i < SIBLINGS; i++)
        must(lctx_with_cancel(parent)); /* and never given back */
    report(run, per_turn(cancel_loop, parent, LONG_NS));
}

static void timeout_background(const run *run)
{
    report(run, per_turn(timeout_loop, lctx_background(), MIN_NS));
}

static void timeout_parent(const run *run)
{
    report(run, per_turn(timeout_loop, live_parent(), MIN_NS));
}

static void timeout_siblings(const run *run)
{
    lctx *parent = live_parent();
    for (long i = 0; i < SIBLINGS; i++)
        must(lctx_with_timeout(parent, HOUR, NULL));
    report(run, per_turn(timeout_loop, parent, LONG_NS));
}

static void do_nothing(lctx_after *after, void *arg)
{
    (void)after, (void)arg;
}

static void after_loop(void *ctx, long n)
{
    for (long i = 0; i < n; i++) {
        lctx_after *after = must(lctx_after_func(ctx, do_nothing, NULL));
        lctx_after_stop(after);
        lctx_after_free(after);
    }
}

static void after_func(const run *run)
{
    report(run, per_turn(after_loop, live_parent(), MIN_NS));
}

static void threads(const run *run)
{
    team team = {(int)run->number, cancel_loop, live_parent()};
    report(run, per_turn(in_each, &team, MIN_NS));
}

/* ---- Values ---------------------------------------------------------------------------------------------- */

static char keys[MAX_DEPTH], no_key;
static const lctx_any one = {.type = LCTX_INTEGER, .as.integer = 1};

static void with_value_loop(void *parent, long n)
{
    for (long i = 0; i < n; i++)
        lctx_unref(must(lctx_with_value(parent, &keys[0], one)));
}

static void with_value(const run *run)
{
    report(run, per_turn(with_value_loop, lctx_background(), MIN_NS));
}

static void with_values_loop(void *parent, long n)
{
    lctx_entry entries[8];
    for (int i = 0; i < 8; i++)
        entries[i] = (lctx_entry){&keys[i], one};
    for (long i = 0; i < n; i++)
        lctx_unref(must(lctx_with_values(parent, 8, entries)));
}

static void with_values(const run *run)
{
    report(run, per_turn(with_values_loop, lctx_background(), MIN_NS));
}

/* Takes over the caller's reference to ctx. keys[0] is nearest to that. */
static lctx *add_layers(lctx *ctx, long depth)
{
    for (long i = 0; i < depth; i++) {
        lctx *layer = must(lctx_with_value(ctx, &keys[i], one));
        lctx_unref(ctx);
        ctx = layer;
    }
    return ctx;
}

typedef struct question {
    lctx *ctx;
    const void *key;
} question;

static void value_loop(void *arg, long n)
{
    question *question = arg;
    lctx_any value;
    long found = 0;
    for (long i = 0; i < n; i++)
        found += lctx_value(question->ctx, question->key, &value);
    sink = found;
}

static void value_hit(const run *run)
{
    question question = {add_layers(lctx_background(), run->number), &keys[0]};
    report(run, per_turn(value_loop, &question, MIN_NS));
}

static void value_miss(const run *run)
{
    question question = {add_layers(lctx_background(), run->number), &no_key};
    report(run, per_turn(value_loop, &question, MIN_NS));
}

/* ---- Asking ---------------------------------------------------------------------------------------------- */

/* What no question can do without. */
__attribute__((noinline)) static int look(const int *word)
{
    __asm__ volatile("");
    return *word;
}

static void call_loop(void *word, long n)
{
    long seen = 0;
    for (long i = 0; i < n; i++)
        seen += look(word) != 0;
    sink = seen;
}

static void floor_call(const run *run)
{
    static int word;
    report(run, per_turn(call_loop, &word, MIN_NS));
}

static void err_loop(void *ctx, long n)
{
    long ended = 0;
    for (long i = 0; i < n; i++)
        ended += lctx_err(ctx) != LCTX_LIVE;
    sink = ended;
}

static void err_live(const run *run)
{
    report(run, per_turn(err_loop, add_layers(live_parent(), run->number), MIN_NS));
}

static void err_ended(const run *run)
{
    lctx *scope = live_parent();
    lctx_cancel(scope);
    report(run, per_turn(err_loop, add_layers(scope, run->number), MIN_NS));
}

static void wait_loop(void *ctx, long n)
{
    long ended = 0;
    for (long i = 0; i < n; i++)
        ended += lctx_wait(ctx, 0);
    sink = ended;
}

static void wait_0(const run *run)
{
    report(run, per_turn(wait_loop, live_parent(), MIN_NS));
}

/* ---- Ending a tree --------------------------------------------------------------------------------------- */

/* Under each of `count` parents, `size` contexts, which `links` holds from then on. */
typedef void grow(lctx *parent, lctx **links, long size);

static void grow_children(lctx *parent, lctx **links, long size)
{
    for (long i = 0; i < size; i++)
        links[i] = must(lctx_with_cancel(parent));
}

static void grow_chain(lctx *parent, lctx **links, long size)
{
    for (long i = 0; i < size; i++)
        links[i] = parent = must(lctx_with_cancel(parent));
}

static double cancel_trees(grow *grow, long size, long count)
{
    lctx **parents = new_array(count), **links = new_array(count * size);
    for (long i = 0; i < count; i++) {
        parents[i] = live_parent();
        grow(parents[i], links + i * size, size);
    }
    double start = now_ns();
    for (long i = 0; i < count; i++)
        lctx_cancel(parents[i]);
    double ns = now_ns() - start;
    for (long i = 0; i < count * size; i++)
        lctx_unref(links[i]);
    for (long i = 0; i < count; i++)
        lctx_unref(parents[i]);
    free(parents);
    free(links);
    return ns;
}

static double per_node(grow *grow, long size)
{
    const long count = size < 30000 ? 30000 / size : 1;
    double ns = 0, nodes = 0;
    while (ns < MIN_NS) {
        ns += cancel_trees(grow, size, count);
        nodes += (double)(count * size);
    }
    return ns / nodes;
}

static void cancel_children(const run *run)
{
    report(run, per_node(grow_children, run->number));
}

static void cancel_chain(const run *run)
{
    report(run, per_node(grow_chain, run->number));
}

static atomic_int phase; /* of the thread that cancels: 0 not yet, 1 under way, 2 done */

static void *cancel_in_thread(void *ctx)
{
    atomic_store(&phase, 1);
    lctx_cancel(ctx);
    atomic_store(&phase, 2);
    return NULL;
}

static void err_blocked(const run *run)
{
    lctx *parent = live_parent();
    pthread_t thread;
    for (long i = 0; i < run->number; i++)
        must(lctx_with_cancel(parent));
    pthread_create(&thread, NULL, cancel_in_thread, parent);
    while (atomic_load(&phase) == 0)
        continue;
    double longest = 0;
    while (atomic_load(&phase) != 2) {
        double start = now_ns();
        sink = lctx_err(parent);
        longest = fmax(longest, now_ns() - start);
    }
    pthread_join(thread, NULL);
    report(run, longest);
}

typedef struct sleeper {
    lctx *ctx;
    double woken;
} sleeper;

static void *sleep_in_thread(void *arg)
{
    sleeper *sleeper = arg;
    lctx_wait(sleeper->ctx, INFINITY);
    sleeper->woken = now_ns();
    return NULL;
}

static double wake_up(void)
{
    sleeper sleeper = {.ctx = live_parent()};
    pthread_t thread;
    pthread_create(&thread, NULL, sleep_in_thread, &sleeper);
    nap(300e-6); /* so that it sleeps */
    double start = now_ns();
    lctx_cancel(sleeper.ctx);
    pthread_join(thread, NULL);
    lctx_unref(sleeper.ctx);
    return sleeper.woken - start;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(double *list, long n, double q)
{
    qsort(list, (size_t)n, sizeof *list, compare);
    return list[(long)((double)(n - 1) * q)];
}

static void wakeup(const run *run)
{
    enum { TIMES = 200 };
    double ns[TIMES];
    for (int i = 0; i < TIMES; i++)
        ns[i] = wake_up();
    report(run, quantile(ns, TIMES, 0.5));
}

/* ---- Timers ---------------------------------------------------------------------------------------------- */

typedef struct tally {
    double create, cancel, timers;
} tally;

static void create_and_cancel(lctx **list, long n, tally *tally)
{
    double start = now_ns();
    for (long i = 0; i < n; i++)
        list[i] = must(lctx_with_timeout(lctx_background(), HOUR, NULL));
    double created = now_ns();
    for (long i = 0; i < n; i++)
        lctx_cancel(list[i]);
    double cancelled = now_ns();
    for (long i = 0; i < n; i++)
        lctx_unref(list[i]);
    tally->create += created - start;
    tally->cancel += cancelled - created;
    tally->timers += (double)n;
}

/* Nanoseconds from the common deadline of n timers until all have ended; negative when they could not be made
 * before their deadline. */
static double expire(lctx **list, long n, double lead)
{
    double deadline = lctx_now() + lead;
    for (long i = 0; i < n; i++)
        list[i] = must(lctx_with_deadline(lctx_background(), deadline, NULL));
    bool in_time = lctx_now() < deadline;
    for (long i = n - 1; i >= 0; i--) /* the last one first: then few of the others are still to be waited for */
        if (lctx_err(list[i]) == LCTX_LIVE)
            lctx_wait(list[i], INFINITY);
    double ns = (lctx_now() - deadline) * 1e9;
    for (long i = 0; i < n; i++)
        lctx_unref(list[i]);
    return in_time ? ns : -1;
}

static double expire_in_time(lctx **list, long n, double lead)
{
    for (;; lead *= 2) {
        double ns = expire(list, n, lead);
        if (ns >= 0)
            return ns;
    }
}

static void timers(const run *run)
{
    const long n = run->number;
    const int times = n < 1000 ? 20 : 1;
    lctx **list = new_array(n);
    tally tally = {0};
    while (tally.create < MIN_NS)
        create_and_cancel(list, n, &tally);
    double create = tally.create / tally.timers, expired = 0;
    for (int i = 0; i < times; i++)
        expired += expire_in_time(list, n, 0.002 + 1.5e-9 * create * (double)n);
    report_part(run, "create", create);
    report_part(run, "cancel", tally.cancel / tally.timers);
    report_part(run, "expire", expired / (double)n / times);
}

enum { LATE = 10000 };
static double deadlines[LATE], late_ns[LATE];
static atomic_int late_seen;

static void note_late(lctx_after *after, void *arg)
{
    double *deadline = arg;
    (void)after;
    late_ns[deadline - deadlines] = (lctx_now() - *deadline) * 1e9;
    atomic_fetch_add(&late_seen, 1);
}

static void late(const run *run)
{
    double start = lctx_now() + 0.2;
    for (int i = 0; i < LATE; i++) {
        deadlines[i] = start + i * 7919L % LATE * (1.0 / LATE); /* out of order: 7919 is prime */
        lctx *ctx = must(lctx_with_deadline(lctx_background(), deadlines[i], NULL));
        lctx_after_free(must(lctx_after_func(ctx, note_late, &deadlines[i])));
        lctx_unref(ctx);
    }
    while (atomic_load(&late_seen) < LATE)
        nap(0.005);
    report_part(run, "p50", quantile(late_ns, LATE, 0.5));
    report_part(run, "p99", quantile(late_ns, LATE, 0.99));
}

/* ---- Memory ---------------------------------------------------------------------------------------------- */

#ifdef __GLIBC__
static double allocated(void)
{
    struct mallinfo2 info = mallinfo2();
    return (double)info.uordblks + (double)info.hblkhd;
}

typedef lctx *maker(lctx *parent);

static lctx *make_timeout(lctx *parent)
{
    return lctx_with_timeout(parent, HOUR, NULL);
}

static lctx *make_value(lctx *parent)
{
    return lctx_with_value(parent, &keys[0], one);
}

static double bytes_each(maker *make, lctx *parent)
{
    double before = allocated();
    for (long i = 0; i < OF_A_KIND; i++)
        must(make(parent));
    return (allocated() - before) / OF_A_KIND;
}

static void bytes_cancel(const run *run)
{
    report(run, bytes_each(lctx_with_cancel, live_parent()));
}

static void bytes_timeout(const run *run)
{
    report(run, bytes_each(make_timeout, live_parent()));
}

static void bytes_value(const run *run)
{
    report(run, bytes_each(make_value, lctx_background()));
}
#endif

/* ---- Go's own benchmarks ---------------------------------------------------------------------------------- */

/* A hundred divisions that the compiler cannot foresee, as wide as Go's. */
static int64_t divide(int64_t x)
{
    for (int i = 0; i < 100; i++) {
        x /= x + 1;
        __asm__ volatile("" : "+r"(x));
    }
    return x;
}

static void common_parent_loop(void *shared, long n)
{
    lctx_any value;
    int64_t x = 0;
    for (long i = 0; i < n; i++) {
        lctx *ctx = must(lctx_with_cancel(shared));
        if (!lctx_value(ctx, &keys[0], &value))
            abort();
        x = divide(x);
        lctx_cancel(ctx);
        x = divide(x);
        lctx_unref(ctx);
    }
}

static void common_parent_cancel(const run *run)
{
    lctx *shared = must(lctx_with_cancel(add_layers(lctx_background(), 1)));
    report(run, in_parallel(common_parent_loop, shared, MIN_NS));
}

static void ten_timeouts_loop(void *parent, long n)
{
    lctx *list[10];
    for (long i = 0; i < n; i++) {
        for (int k = 0; k < 10; k++)
            list[k] = must(lctx_with_timeout(parent, HOUR, NULL));
        for (int k = 0; k < 10; k++) {
            lctx_cancel(list[k]);
            lctx_unref(list[k]);
        }
    }
}

static void with_timeout_among(const run *run)
{
    for (long i = 0; i < run->number; i++)
        must(lctx_with_timeout(lctx_background(), HOUR, NULL));
    report(run, in_parallel(ten_timeouts_loop, lctx_background(), run->number > 100000 ? LONG_NS : MIN_NS));
}

/* A chain whose cancel functions are thrown away. */
static void build_chain(lctx *ctx, long depth)
{
    lctx_ref(ctx);
    for (long i = 0; i < depth; i++) {
        lctx *child = must(lctx_with_cancel(ctx));
        lctx_unref(ctx);
        ctx = child;
    }
    lctx_unref(ctx);
}

static void tree_background_loop(void *depth, long n)
{
    for (long i = 0; i < n; i++)
        build_chain(lctx_background(), *(const long *)depth);
}

/* In Go the root holds the chain until it is cancelled; here somebody has to. */
static void tree_open_loop(void *depth, long n)
{
    for (long i = 0; i < n; i++) {
        lctx *root = live_parent(), *ctx = lctx_ref(root);
        for (long d = *(const long *)depth; d > 0; d--) {
            lctx *child = must(lctx_with_cancel(ctx));
            lctx_unref(ctx);
            ctx = child;
        }
        lctx_cancel(root);
        lctx_unref(ctx);
        lctx_unref(root);
    }
}

static void tree_closed_loop(void *depth, long n)
{
    for (long i = 0; i < n; i++) {
        lctx *root = live_parent();
        lctx_cancel(root);
        build_chain(root, *(const long *)depth);
        lctx_unref(root);
    }
}

static void tree_background(const run *run)
{
    long depth = run->number;
    report(run, per_turn(tree_background_loop, &depth, MIN_NS));
}

static void tree_open(const run *run)
{
    long depth = run->number;
    report(run, per_turn(tree_open_loop, &depth, MIN_NS));
}

static void tree_closed(const run *run)
{
    long depth = run->number;
    report(run, per_turn(tree_closed_loop, &depth, MIN_NS));
}

static void context_cancel_done(const run *run)
{
    report(run, in_parallel(err_loop, live_parent(), MIN_NS));
}

/* ---- The runs --------------------------------------------------------------------------------------------- */

static const run runs[] = {
    {"floor", measure_floor, 0},
    {"with_cancel.background", cancel_background, 0},
    {"with_cancel.parent", cancel_parent, 0},
    {"with_cancel.siblings", cancel_siblings, 0},
    {"with_timeout.background", timeout_background, 0},
    {"with_timeout.parent", timeout_parent, 0},
    {"with_timeout.siblings", timeout_siblings, 0},
    {"after_func", after_func, 0},
    {"threads.1", threads, 1},
    {"threads.2", threads, 2},
    {"with_value", with_value, 0},
    {"with_values.8", with_values, 0},
    {"value.hit.1", value_hit, 1},
    {"value.hit.10", value_hit, 10},
    {"value.hit.100", value_hit, 100},
    {"value.hit.1000", value_hit, 1000},
    {"value.miss.1", value_miss, 1},
    {"value.miss.10", value_miss, 10},
    {"value.miss.100", value_miss, 100},
    {"value.miss.1000", value_miss, 1000},
    {"floor.call", floor_call, 0},
    {"err.live", err_live, 0},
    {"err.ended", err_ended, 0},
    {"err.live.layers", err_live, LAYERS},
    {"err.ended.layers", err_ended, LAYERS},
    {"done.live", err_live, 0},
    {"done.ended", err_ended, 0},
    {"done.live.layers", err_live, LAYERS},
    {"done.ended.layers", err_ended, LAYERS},
    {"wait.0", wait_0, 0},
    {"cancel.children.1", cancel_children, 1},
    {"cancel.children.1000", cancel_children, 1000},
    {"cancel.children.100000", cancel_children, 100000},
    {"cancel.children.1000000", cancel_children, 1000000},
    {"cancel.chain.10000", cancel_chain, 10000},
    {"cancel.chain.1000000", cancel_chain, 1000000},
    {"err.blocked", err_blocked, 1000000},
    {"wakeup", wakeup, 0},
    {"timers.100", timers, 100},
    {"timers.1000000", timers, 1000000},
    {"late", late, 0},
#ifdef __GLIBC__
    {"bytes.with_cancel", bytes_cancel, 0},
    {"bytes.with_timeout", bytes_timeout, 0},
    {"bytes.with_value", bytes_value, 0},
#endif
    {"CommonParentCancel", common_parent_cancel, 0},
    {"WithTimeout/concurrency=40", with_timeout_among, 40},
    {"WithTimeout/concurrency=4000", with_timeout_among, 4000},
    {"WithTimeout/concurrency=400000", with_timeout_among, 400000},
    {"CancelTree/depth=1/Root=Background", tree_background, 1},
    {"CancelTree/depth=1/Root=OpenCanceler", tree_open, 1},
    {"CancelTree/depth=1/Root=ClosedCanceler", tree_closed, 1},
    {"CancelTree/depth=10/Root=Background", tree_background, 10},
    {"CancelTree/depth=10/Root=OpenCanceler", tree_open, 10},
    {"CancelTree/depth=10/Root=ClosedCanceler", tree_closed, 10},
    {"CancelTree/depth=100/Root=Background", tree_background, 100},
    {"CancelTree/depth=100/Root=OpenCanceler", tree_open, 100},
    {"CancelTree/depth=100/Root=ClosedCanceler", tree_closed, 100},
    {"CancelTree/depth=1000/Root=Background", tree_background, 1000},
    {"CancelTree/depth=1000/Root=OpenCanceler", tree_open, 1000},
    {"CancelTree/depth=1000/Root=ClosedCanceler", tree_closed, 1000},
    {"CheckCanceled/Err", err_ended, 0},
    {"CheckCanceled/Done", err_ended, 0},
    {"ContextCancelDone", context_cancel_done, 0},
    {"DeepValueSameGoRoutine/depth=10", value_miss, 10},
    {"DeepValueSameGoRoutine/depth=20", value_miss, 20},
    {"DeepValueSameGoRoutine/depth=30", value_miss, 30},
    {"DeepValueSameGoRoutine/depth=50", value_miss, 50},
    {"DeepValueSameGoRoutine/depth=100", value_miss, 100},
    {"ErrOK", err_live, 0},
    {"ErrCanceled", err_ended, 0},
};

int main(int argc, char **argv)
{
    const char *wanted = argc > 1 ? argv[1] : NULL;
    bool list = wanted && strcmp(wanted, "list") == 0;
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        if (list)
            puts(runs[i].name);
        else if (wanted == NULL || strcmp(wanted, runs[i].name) == 0)
            runs[i].measure(&runs[i]);
    }
    return 0;
}
