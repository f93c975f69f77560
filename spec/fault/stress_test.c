/* SPDX-License-Identifier: MIT
 *
 * Eight threads on one tree, at random, for SECONDS seconds (environment; default 5, 60 under the thread sanitizer).
 * SEED in the environment repeats the schedule of operations, though not that of the threads. What must hold:
 *   - the first end wins: error and cause never change once somebody has seen them
 *   - when cancel() has returned, everything below has ended
 *   - a callback runs exactly once or stop() was true, never both
 *   - when everything was dropped nothing is left
 */
#include "../core/threads.h"
#include "../core/values.h"

enum { THREADS = 8, TABLE = 64, REGISTRATIONS = 6, MOST_ABOVE = 48, ROUND_STEPS = 4000 };

typedef struct tree tree;

/* A context of the tree. It stays until the round is over, with or without a reference to the context. */
typedef struct shadow {
    lctx *ctx;
    struct shadow *above[3]; /* what ends it, NULL: nothing more */
    bool scope;              /* cancel() ends it */
    _Atomic uint64_t end;    /* how it ended, as the first who looked has seen it; 0: nobody has */
    struct shadow *next;     /* all of the round */
} shadow;

typedef struct registration {
    shadow *on; /* with a reference */
    lctx_after *after;
    atomic_int runs;
} registration;

struct tree {
    pthread_mutex_t mutex;
    shadow *table[TABLE]; /* mutex; each with a reference */
    _Atomic(shadow *) all;
    uint64_t seed;
    double until;
};

static char key;
static atomic_llong next_cause, operations, cancels, ends_seen, callbacks_run, callbacks_stopped, checked_below;

/* ---- Shadows --------------------------------------------------------------------------------------------- */

static bool look(shadow *s)
{
    lctx_any cause = of_integer(0);
    lctx_err_t err = lctx_err(s->ctx);
    if (err == LCTX_LIVE)
        return false;
    lctx_cause(s->ctx, &cause);
    uint64_t end = (uint64_t)cause.as.integer << 2 | (uint64_t)err, before = 0;
    if (!atomic_compare_exchange_strong(&s->end, &before, end))
        CHECK(before == end);
    else
        atomic_fetch_add(&ends_seen, 1);
    return true;
}

static shadow *pick(tree *t, uint64_t *rng)
{
    pthread_mutex_lock(&t->mutex);
    shadow *s = t->table[check_random(rng) % TABLE];
    lctx_ref(s->ctx);
    pthread_mutex_unlock(&t->mutex);
    return s;
}

/* Takes over the reference of s; the one of what it replaces goes, which may be the last. */
static void put(tree *t, shadow *s, uint64_t *rng)
{
    pthread_mutex_lock(&t->mutex);
    shadow **place = &t->table[check_random(rng) % TABLE], *before = *place;
    *place = s;
    pthread_mutex_unlock(&t->mutex);
    if (before)
        lctx_unref(before->ctx);
}

static shadow *new_shadow(tree *t, lctx *ctx, bool scope)
{
    shadow *s = calloc(1, sizeof *s);
    *s = (shadow){.ctx = ctx, .scope = scope, .next = atomic_load(&t->all)};
    CHECK(ctx != NULL);
    while (!atomic_compare_exchange_weak(&t->all, &s->next, s))
        continue;
    return s;
}

/* Whether `top` is above s. False as well for one that has too much above it to tell. */
static bool is_below(const shadow *s, const shadow *top)
{
    const shadow *seen[MOST_ABOVE] = {s};
    int count = 1;
    for (int i = 0; i < count; i++) {
        if (seen[i] == top)
            return true;
        for (int j = 0; j < 3 && seen[i]->above[j]; j++) {
            int at = 0;
            while (at < count && seen[at] != seen[i]->above[j])
                at++;
            if (at == count && count < MOST_ABOVE)
                seen[count++] = seen[i]->above[j];
        }
    }
    return false;
}

/* ---- Operations ------------------------------------------------------------------------------------------ */

static lctx_any new_cause(void)
{
    return of_integer(atomic_fetch_add(&next_cause, 1) + 1);
}

static shadow *merge(tree *t, shadow *parent, uint64_t *rng)
{
    shadow *others[2] = {pick(t, rng), pick(t, rng)};
    size_t n = 1 + check_random(rng) % 3;
    lctx *parents[] = {parent->ctx, others[0]->ctx, others[1]->ctx};
    shadow *made = new_shadow(t, lctx_merge(n, parents), true);
    for (size_t i = 1; i < n; i++)
        made->above[i] = others[i - 1];
    lctx_unref(others[0]->ctx);
    lctx_unref(others[1]->ctx);
    return made;
}

static shadow *timeout(tree *t, shadow *parent, uint64_t *rng)
{
    const lctx_any cause = new_cause();
    double seconds = (double)(check_random(rng) % 4000) / 1e6;
    lctx *ctx = check_random(rng) % 2 ? lctx_with_timeout(parent->ctx, seconds, &cause)
                                      : lctx_with_deadline(parent->ctx, lctx_now() + seconds, &cause);
    return new_shadow(t, ctx, true);
}

static shadow *value(tree *t, shadow *parent, uint64_t *rng)
{
    lctx_any any;
    const lctx_any mine = of_integer((int64_t)(check_random(rng) >> 2));
    shadow *made = new_shadow(t, lctx_with_value(parent->ctx, &key, mine), false);
    CHECK(lctx_value(made->ctx, &key, &any) && any.as.integer == mine.as.integer);
    return made;
}

static void derive(tree *t, uint64_t *rng)
{
    static const lctx_methods no_methods;
    shadow *parent = pick(t, rng), *made;
    bool had_ended = look(parent), cut = false;
    uint64_t dice = check_random(rng) % 16;
    if (dice == 0)
        made = new_shadow(t, lctx_without_cancel(parent->ctx), false);
    else if (dice < 4)
        made = value(t, parent, rng);
    else if (dice < 8)
        made = timeout(t, parent, rng);
    else if (dice < 11)
        made = merge(t, parent, rng);
    else if (dice == 11)
        made = new_shadow(t, lctx_custom(parent->ctx, &no_methods, NULL), true);
    else
        made = new_shadow(t, lctx_with_cancel(parent->ctx), true);
    cut = dice == 0;
    made->above[0] = cut ? NULL : parent;
    if (had_ended && !cut)
        CHECK(look(made) && atomic_load(&made->end) == atomic_load(&parent->end));
    lctx_unref(parent->ctx);
    put(t, made, rng);
}

static void check_below(tree *t, const shadow *top)
{
    pthread_mutex_lock(&t->mutex);
    for (int i = 0; i < TABLE; i++)
        if (is_below(t->table[i], top)) {
            CHECK(look(t->table[i]));
            atomic_fetch_add(&checked_below, 1);
        }
    pthread_mutex_unlock(&t->mutex);
}

static void cancel(tree *t, uint64_t *rng)
{
    shadow *s = pick(t, rng);
    const lctx_any cause = new_cause();
    CHECK(lctx_cancel_cause(s->ctx, &cause) == 0);
    if (s->scope && CHECK(look(s)))
        check_below(t, s);
    atomic_fetch_add(&cancels, 1);
    lctx_unref(s->ctx);
}

static void wait_shortly(tree *t, uint64_t *rng)
{
    shadow *s = pick(t, rng);
    if (lctx_wait(s->ctx, (double)(check_random(rng) % 300) / 1e6))
        CHECK(look(s));
    lctx_unref(s->ctx);
}

static void ask(tree *t, uint64_t *rng)
{
    shadow *s = pick(t, rng);
    double time;
    bool past = lctx_deadline(s->ctx, &time) && lctx_remaining(s->ctx) == 0;
    if (past)
        CHECK(look(s));
    lctx_unref(s->ctx);
}

static void drop(tree *t, uint64_t *rng)
{
    put(t, new_shadow(t, lctx_with_cancel(lctx_background()), true), rng);
}

/* ---- Callbacks ------------------------------------------------------------------------------------------- */

static void count_run(lctx_after *after, void *arg)
{
    (void)after;
    registration *r = arg;
    CHECK(look(r->on));
    atomic_fetch_add(&r->runs, 1);
}

static void await_run(registration *r)
{
    for (int i = 0; i < 20000 && atomic_load(&r->runs) == 0; i++)
        nanosleep(&(struct timespec){0, 1000000}, NULL);
}

static void finish(registration *r)
{
    if (r->after == NULL)
        return;
    if (lctx_after_stop(r->after)) {
        CHECK(atomic_load(&r->runs) == 0);
        atomic_fetch_add(&callbacks_stopped, 1);
    } else {
        CHECK(look(r->on));
        await_run(r); /* another thread may be about to run it */
        CHECK(atomic_load(&r->runs) == 1);
        atomic_fetch_add(&callbacks_run, 1);
    }
    CHECK(!lctx_after_stop(r->after));
    lctx_after_free(r->after);
    lctx_unref(r->on->ctx);
    r->after = NULL;
}

static void reregister(tree *t, registration *mine, uint64_t *rng)
{
    registration *r = &mine[check_random(rng) % REGISTRATIONS];
    finish(r);
    r->on = pick(t, rng);
    atomic_store(&r->runs, 0);
    r->after = lctx_after_func(r->on->ctx, count_run, r);
    CHECK(r->after != NULL);
}

/* ---- The play -------------------------------------------------------------------------------------------- */

static void play(member *m)
{
    tree *t = m->shared;
    uint64_t rng = t->seed * 1000 + (uint64_t)m->index;
    registration mine[REGISTRATIONS] = {{0}};
    int step = 0;
    for (; step < ROUND_STEPS && lctx_monotonic() < t->until; step++) {
        uint64_t dice = check_random(&rng) % 32;
        if (dice < 16)
            derive(t, &rng);
        else if (dice < 20)
            cancel(t, &rng);
        else if (dice < 26)
            reregister(t, mine, &rng);
        else if (dice < 28)
            wait_shortly(t, &rng);
        else if (dice < 30)
            ask(t, &rng);
        else
            drop(t, &rng);
    }
    for (int i = 0; i < REGISTRATIONS; i++)
        finish(&mine[i]);
    atomic_fetch_add(&operations, step);
}

/* One tree: everything hangs below one root, until it was cut off. */
static void play_round(uint64_t seed, double until)
{
    tree t = {.mutex = PTHREAD_MUTEX_INITIALIZER, .seed = seed, .until = until};
    shadow *root = new_shadow(&t, lctx_with_cancel(lctx_background()), true);
    for (int i = 0; i < TABLE; i++) {
        t.table[i] = new_shadow(&t, lctx_with_cancel(root->ctx), true);
        t.table[i]->above[0] = root;
    }
    in_threads(THREADS, play, &t);
    lctx_cancel(root->ctx);
    check_below(&t, root);
    for (int i = 0; i < TABLE; i++)
        lctx_unref(t.table[i]->ctx);
    lctx_unref(root->ctx);
    for (shadow *s = atomic_load(&t.all), *next; s; s = next) {
        next = s->next;
        free(s);
    }
    if (!CHECK(check_nothing_left()))
        fprintf(stderr, "  in the round with SEED=%llu\n", (unsigned long long)seed);
}

static double number_from(const char *name, double otherwise)
{
    const char *text = getenv(name);
    return text && *text ? atof(text) : otherwise;
}

TEST(whatever_threads_do_to_one_tree_the_rules_hold)
{
#ifdef CHECK_TSAN
    double seconds = number_from("SECONDS", 60);
#else
    double seconds = number_from("SECONDS", 5);
#endif
    double start = lctx_monotonic(), now;
    uint64_t seed = (uint64_t)number_from("SEED", (double)((uint64_t)time(NULL) % 1000000000));
    printf("SEED=%llu, %g seconds\n", (unsigned long long)seed, seconds);
    fflush(stdout);
    int rounds = 0;
    for (; (now = lctx_monotonic()) < start + seconds && atomic_load(&check_failures) == 0; rounds++) {
        alarm(120);
        play_round(seed + (uint64_t)rounds, start + seconds);
        if (atomic_load(&check_failures))
            fprintf(stderr, "  in the round with SEED=%llu\n", (unsigned long long)seed + (unsigned long long)rounds);
    }
    printf("%d rounds, %lld operations, %lld cancels, %lld ends seen, %lld checks below, %lld callbacks run, %lld "
           "stopped\n",
           rounds, atomic_load(&operations), atomic_load(&cancels), atomic_load(&ends_seen),
           atomic_load(&checked_below), atomic_load(&callbacks_run), atomic_load(&callbacks_stopped));
    CHECK(rounds > 0 && atomic_load(&callbacks_run) > 0 && atomic_load(&callbacks_stopped) > 0);
}

int main(int argc, char **argv)
{
    static const check_case cases[] = {
        CASE(whatever_threads_do_to_one_tree_the_rules_hold),
    };
    return CHECK_MAIN(cases);
}
