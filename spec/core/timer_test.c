/* SPDX-License-Identifier: MIT
 *
 * Deadlines, with a clock that moves when a test says so. The library believes that its timer thread runs, or
 * that it cannot have one, but there is never a thread here: the tests call lctx__timers_run, which is all
 * that it does. So nothing depends on the machine.
 */
// link: -Wl,--wrap=pthread_create
#include <errno.h>
#include <math.h>
#include <pthread.h>

#include "../../csrc/core/timer.h"
#include "values.h"

enum { TICK = 1 << 14, MS = 1000000, SECOND = 1000000000 };

static char key;
static const lctx_methods no_methods;

/* ---- The clock and the thread that is none --------------------------------------------------------------- */

static lctx_ns now = SECOND;
static double wall_ahead = 1.7e9; /* the wall clock is the other one plus this */
static lctx_ns lag;               /* passes with each reading, as if the thread were preempted there */

static lctx_ns test_monotonic(void)
{
    return now += lag;
}

static double test_wall(void)
{
    now += lag;
    return wall_ahead + (double)now / 1e9;
}

static const lctx_clock test_clock = {test_monotonic, test_wall};

static bool threads_forbidden;
static int threads_wanted;

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
    (void)attr, (void)run, (void)arg;
    threads_wanted++;
    *thread = pthread_self();
    return threads_forbidden ? EAGAIN : 0;
}

/* As if the process had been forked: whatever thread there was is gone. */
static void lose_thread(bool forbid_new_ones)
{
    threads_forbidden = forbid_new_ones;
    lctx__timers_before_fork();
    lctx__timers_after_fork(true);
}

static void pass(lctx_ns time)
{
    now += time;
    lctx__timers_run();
}

static lctx_ns when_of(lctx *ctx)
{
    return ((lctx_deadline_scope *)ctx)->when;
}

/* The wheel rounds up to ticks: what is due at this moment has ended after a run. */
static bool is_due(lctx_ns when)
{
    return (when + TICK - 1) / TICK <= now / TICK;
}

/* ---- One deadline ---------------------------------------------------------------------------------------- */

TEST(a_deadline_ends_its_context_in_time_and_not_before)
{
    const lctx_any slow = of_string("slow");
    lctx *ctx = lctx_with_timeout(lctx_background(), 0.01, &slow), *child = lctx_with_cancel(ctx);
    CHECK(stats_now().timers == 1);
    pass(10 * MS - 1);
    CHECK(lctx_err(ctx) == LCTX_LIVE && lctx_err(child) == LCTX_LIVE);
    pass(TICK);
    CHECK(ended_as(ctx, LCTX_DEADLINE_EXCEEDED, "slow") && ended_as(child, LCTX_DEADLINE_EXCEEDED, "slow"));
    CHECK(stats_now().timers == 0);
    lctx_unref(child);
    lctx_unref(ctx);
}

TEST(a_deadline_as_a_point_in_time_ends_its_context_too)
{
    lctx *ctx = lctx_with_deadline(lctx_background(), lctx_now() + 10, NULL);
    pass(10ll * SECOND - MS);
    CHECK(lctx_err(ctx) == LCTX_LIVE);
    pass(2 * MS);
    CHECK(ended_as(ctx, LCTX_DEADLINE_EXCEEDED, NULL));
    lctx_unref(ctx);
}

TEST(a_time_that_is_past_makes_a_context_born_ended)
{
    const lctx_any slow = of_string("slow");
    const double spans[] = {0, -0.0, -1, -1e9, -1e300, -INFINITY};
    for (int i = 0; i < 6; i++) {
        lctx *a = lctx_with_timeout(lctx_background(), spans[i], &slow);
        lctx *b = lctx_with_deadline(lctx_background(), lctx_now() + spans[i], &slow);
        CHECK(ended_as(a, LCTX_DEADLINE_EXCEEDED, "slow") && ended_as(b, LCTX_DEADLINE_EXCEEDED, "slow"));
        CHECK(stats_now().timers == 0 && lctx_remaining(a) == 0 && lctx_remaining(b) == 0);
        lctx_unref(a);
        lctx_unref(b);
    }
}

TEST(a_deadline_endlessly_long_ago_stays_past)
{
    lctx *a = lctx_with_timeout(lctx_background(), -INFINITY, NULL),
         *b = lctx_with_timeout(lctx_background(), -1e300, NULL);
    lctx *c = lctx_with_deadline(lctx_background(), -INFINITY, NULL);
    double time;
    pass(10ll * SECOND);
    CHECK(lctx_remaining(a) == 0 && lctx_remaining(b) == 0 && lctx_remaining(c) == 0);
    CHECK(lctx_deadline(a, &time) && time < lctx_now());
    CHECK(lctx_deadline(c, &time) && time == -INFINITY);
    lctx *all[] = {a, b, c};
    unref_all(all, 3);
}

TEST(a_deadline_too_far_to_tell_is_kept_all_the_same)
{
    const double spans[] = {1e9, 9.2e9, 1e10, 1e18, 1e300};
    for (int i = 0; i < 5; i++) {
        lctx *ctx = lctx_with_timeout(lctx_background(), spans[i], NULL), *child = lctx_with_timeout(ctx, 1, NULL);
        double time;
        CHECK(lctx_deadline(ctx, &time) && time > lctx_now() + 9e8 && lctx_remaining(ctx) > 9e8);
        pass(2ll * SECOND);
        CHECK(lctx_err(ctx) == LCTX_LIVE && lctx_err(child) == LCTX_DEADLINE_EXCEEDED && stats_now().timers == 1);
        lctx_unref(child);
        lctx_unref(ctx);
        ctx = lctx_with_deadline(lctx_background(), spans[i] + lctx_now(), NULL);
        CHECK(lctx_err(ctx) == LCTX_LIVE && stats_now().timers == 1);
        lctx_cancel(ctx);
        lctx_unref(ctx);
    }
}

TEST(infinity_is_no_deadline)
{
    lctx *all[] = {lctx_with_timeout(lctx_background(), INFINITY, NULL),
                   lctx_with_deadline(lctx_background(), INFINITY, NULL)};
    for (int i = 0; i < 2; i++) {
        double time;
        CHECK(!lctx_deadline(all[i], &time) && lctx_remaining(all[i]) == INFINITY && lctx_can_end(all[i]));
    }
    CHECK(stats_now().timers == 0);
    unref_all(all, 2);
}

TEST(a_cancel_before_the_deadline_wins_and_disarms_it)
{
    const lctx_any slow = of_string("slow");
    lctx *parent = lctx_with_timeout(lctx_background(), 1, &slow), *child = lctx_with_timeout(parent, 3600, &slow);
    CHECK(stats_now().timers == 1);
    lctx_cancel(child);
    cancel_with(parent, "why");
    CHECK(stats_now().timers == 0);
    pass(2ll * SECOND);
    CHECK(ended_as(child, LCTX_CANCELED, NULL) && ended_as(parent, LCTX_CANCELED, "why"));
    lctx_unref(child);
    lctx_unref(parent);
}

static void check_random_layers(uint64_t number)
{
    enum { LAYERS = 40 };
    static char keys[LAYERS];
    lctx *layers[LAYERS], *ctx = lctx_background();
    uint64_t seed = number;
    bool timed = false;
    for (int i = 0; i < LAYERS; i++) {
        int kind = (int)(check_random(&seed) % 3);
        if (kind == 0)
            ctx = lctx_with_value(ctx, &keys[i], of_integer(i));
        else
            ctx = kind == 1 ? lctx_with_cancel(ctx) : lctx_with_timeout(ctx, 0.001, NULL);
        timed = timed || kind == 2;
        layers[i] = ctx;
    }
    CHECK(stats_now().timers <= 1); /* equal deadlines: only the topmost has one of its own */
    pass(2 * MS);
    CHECK(lctx_err(ctx) == (timed ? LCTX_DEADLINE_EXCEEDED : LCTX_LIVE));
    for (int i = 0; i < LAYERS; i++) {
        lctx_any any;
        CHECK(lctx_value(ctx, &keys[i], &any) == lctx_value(layers[i], &keys[i], &any));
    }
    unref_all(layers, LAYERS);
}

TEST(a_deadline_in_any_layer_ends_the_leaf_and_no_value)
{
    for (uint64_t i = 1; i <= 100; i++)
        check_random_layers(i);
}

/* ---- Whose deadline -------------------------------------------------------------------------------------- */

TEST(a_parent_whose_deadline_is_sooner_wins)
{
    const lctx_any parents = of_string("parent"), childs = of_string("child");
    lctx *parent = lctx_with_timeout(lctx_background(), 1, &parents), *value = lctx_with_value(parent, &key, childs);
    lctx *late = lctx_with_timeout(value, 1000, &childs), *soon = lctx_with_timeout(value, 0.5, &childs);
    double time, parents_time;
    CHECK(lctx_deadline(late, &time) && lctx_deadline(parent, &parents_time) && time == parents_time);
    CHECK(lctx_deadline(soon, &time) && time < parents_time && stats_now().timers == 2);
    pass(SECOND / 2 + MS);
    CHECK(ended_as(soon, LCTX_DEADLINE_EXCEEDED, "child") && lctx_err(late) == LCTX_LIVE);
    pass(SECOND);
    CHECK(ended_as(late, LCTX_DEADLINE_EXCEEDED, "parent") && cause_is(soon, "child"));
    lctx *all[] = {soon, late, value, parent};
    unref_all(all, 4);
}

TEST(of_equal_deadlines_the_parents_wins)
{
    const lctx_any parents = of_string("parent"), childs = of_string("child");
    double time = lctx_now() + 1, asked;
    lctx *parent = lctx_with_deadline(lctx_background(), time, &parents);
    now += 777; /* other readings of the clocks than the parent's */
    lctx *child = lctx_with_deadline(parent, time, &childs);
    lctx *timed = lctx_with_timeout(lctx_background(), 1, &parents), *twin = lctx_with_timeout(timed, 1, &childs);
    CHECK(lctx_deadline(timed, &asked));
    now += 777;
    lctx *told = lctx_with_deadline(timed, asked, &childs);
    CHECK(stats_now().timers == 2);
    pass(2ll * SECOND);
    lctx *all[] = {parent, child, timed, twin, told};
    for (int i = 0; i < 5; i++)
        CHECK(ended_as(all[i], LCTX_DEADLINE_EXCEEDED, "parent"));
    unref_all(all, 5);
}

TEST(without_cancel_has_no_deadline_but_what_is_below_may)
{
    lctx *parent = lctx_with_timeout(lctx_background(), 1, NULL), *without = lctx_without_cancel(parent);
    lctx *below = lctx_with_timeout(without, 10, NULL);
    double time;
    CHECK(!lctx_deadline(without, &time) && lctx_remaining(without) == INFINITY && stats_now().timers == 2);
    pass(5ll * SECOND);
    CHECK(lctx_err(parent) == LCTX_DEADLINE_EXCEEDED && lctx_err(below) == LCTX_LIVE);
    pass(6ll * SECOND);
    CHECK(lctx_err(below) == LCTX_DEADLINE_EXCEEDED);
    lctx *all[] = {below, without, parent};
    unref_all(all, 3);
}

TEST(a_merge_has_the_soonest_deadline_and_ends_with_it)
{
    const lctx_any causes[] = {of_string("0"), of_string("1"), of_string("2")};
    lctx *parents[4] = {lctx_background()};
    for (int i = 0; i < 3; i++)
        parents[i + 1] = lctx_with_timeout(lctx_background(), i == 1 ? 1 : 5, &causes[i]);
    lctx *merge = lctx_merge(4, parents), *child = lctx_with_timeout(merge, 3, NULL);
    double time, soonest;
    CHECK(lctx_deadline(merge, &time) && lctx_deadline(parents[2], &soonest) && time == soonest);
    CHECK(stats_now().timers == 3);
    pass(2ll * SECOND);
    CHECK(ended_as(merge, LCTX_DEADLINE_EXCEEDED, "1") && ended_as(child, LCTX_DEADLINE_EXCEEDED, "1"));
    CHECK(lctx_deadline(merge, &time) && time == soonest);
    lctx_unref(child);
    lctx_unref(merge);
    unref_all(parents, 4);
}

static bool tell_deadline(void *self, double *unix_time)
{
    *unix_time = *(double *)self;
    return true;
}

TEST(the_deadline_that_a_custom_parent_tells_is_respected)
{
    static const lctx_methods methods = {.deadline = tell_deadline};
    double told = lctx_now() + 10, time;
    lctx *custom = lctx_custom(NULL, &methods, &told);
    lctx *late = lctx_with_timeout(custom, 20, NULL), *equal = lctx_with_deadline(custom, told, NULL);
    lctx *soon = lctx_with_timeout(custom, 5, NULL);
    CHECK(stats_now().timers == 1);
    CHECK(lctx_deadline(late, &time) && time == told && lctx_deadline(equal, &time) && time == told);
    CHECK(lctx_deadline(soon, &time) && time < told);
    pass(30ll * SECOND);
    CHECK(lctx_err(late) == LCTX_LIVE && lctx_err(soon) == LCTX_DEADLINE_EXCEEDED); /* custom ones have no timer */
    lctx *all[] = {soon, equal, late, custom};
    unref_all(all, 4);
}

TEST(what_remains_of_a_custom_deadline_is_never_negative)
{
    static const lctx_methods methods = {.deadline = tell_deadline};
    double told = lctx_now() + 0.0095;
    lctx *custom = lctx_custom(NULL, &methods, &told);
    lag = MS;
    for (int i = 0; i < 20; i++)
        CHECK(lctx_remaining(custom) >= 0);
    lag = 0;
    CHECK(lctx_remaining(custom) == 0);
    lctx_unref(custom);
}

/* ---- What the clock says --------------------------------------------------------------------------------- */

TEST(the_deadline_that_was_told_stays)
{
    lctx *timed = lctx_with_timeout(lctx_background(), 10, NULL);
    lctx *fixed = lctx_with_deadline(lctx_background(), lctx_now() + 10, NULL);
    double first, second, time;
    CHECK(lctx_deadline(timed, &first) && lctx_deadline(fixed, &second));
    wall_ahead += 1000;
    now += 5ll * SECOND;
    CHECK(lctx_deadline(timed, &time) && time == first && lctx_deadline(fixed, &time) && time == second);
    pass(6ll * SECOND);
    CHECK(lctx_err(timed) == LCTX_DEADLINE_EXCEEDED && lctx_err(fixed) == LCTX_DEADLINE_EXCEEDED);
    CHECK(lctx_deadline(timed, &time) && time == first && lctx_deadline(fixed, &time) && time == second);
    wall_ahead -= 1000;
    lctx_unref(timed);
    lctx_unref(fixed);
}

TEST(a_jump_of_the_wall_clock_moves_no_deadline)
{
    lctx *timed = lctx_with_timeout(lctx_background(), 10, NULL);
    lctx *fixed = lctx_with_deadline(lctx_background(), lctx_now() + 10, NULL);
    wall_ahead += 1000;
    pass(9ll * SECOND);
    CHECK(lctx_err(timed) == LCTX_LIVE && lctx_err(fixed) == LCTX_LIVE);
    CHECK(lctx_remaining(fixed) > 0.9 && lctx_remaining(fixed) < 1.1);
    wall_ahead -= 2000;
    pass(2ll * SECOND);
    CHECK(lctx_err(timed) == LCTX_DEADLINE_EXCEEDED && lctx_err(fixed) == LCTX_DEADLINE_EXCEEDED);
    wall_ahead += 1000;
    lctx_unref(timed);
    lctx_unref(fixed);
}

TEST(remaining_follows_the_clock_and_ends_the_context_at_zero)
{
    lctx *ctx = lctx_with_timeout(lctx_background(), 10, NULL), *child = lctx_with_cancel(ctx);
    CHECK(lctx_remaining(child) == 10);
    now += 4ll * SECOND;
    CHECK(lctx_remaining(child) == 6);
    now += 6ll * SECOND;
    CHECK(lctx_remaining(child) == 0); /* the timers have not been run */
    CHECK(lctx_err(child) == LCTX_DEADLINE_EXCEEDED && lctx_err(ctx) == LCTX_DEADLINE_EXCEEDED);
    CHECK(stats_now().timers == 0);
    lctx_unref(child);
    lctx_unref(ctx);
}

TEST(err_looks_at_the_clock_once_the_time_was_asked_for)
{
    lctx *ctx = lctx_with_timeout(lctx_background(), 1, NULL), *child = lctx_with_cancel(ctx);
    double time;
    CHECK(lctx_deadline(child, &time));
    now += SECOND - 1;
    CHECK(lctx_err(ctx) == LCTX_LIVE);
    now += 1;
    CHECK(lctx_err(child) == LCTX_DEADLINE_EXCEEDED && lctx_err(ctx) == LCTX_DEADLINE_EXCEEDED);
    lctx_unref(child);
    lctx_unref(ctx);
}

TEST(waiting_looks_at_the_clock)
{
    lctx *ctx = lctx_with_timeout(lctx_background(), 1, NULL);
    CHECK(!lctx_wait(ctx, 0) && !lctx_wait(ctx, NAN) && !lctx_wait(ctx, -1));
    now += SECOND;
    CHECK(lctx_wait(ctx, 0) && lctx_err(ctx) == LCTX_DEADLINE_EXCEEDED);
    CHECK(lctx_wait(ctx, INFINITY) && lctx_wait(ctx, NAN) && lctx_wait(ctx, -INFINITY));
    lctx_unref(ctx);
}

/* Whoever asks for a deadline is preempted between any two readings of the clocks. */
TEST(a_deadline_seen_to_pass_is_not_live_however_slowly_it_was_told)
{
    double time, wall;
    lctx *ctx = lctx_with_timeout(lctx_background(), 10, NULL);
    lag = MS;
    CHECK(lctx_deadline(ctx, &time));
    lag = 0;
    now += (lctx_ns)((time - lctx_now()) * 1e9) - 100 * MS;
    while ((wall = lctx_now()) < time)
        now += 1000;
    CHECK(lctx_err(ctx) == LCTX_DEADLINE_EXCEEDED);
    lctx_unref(ctx);
}

/* A double cannot tell nanoseconds of our days apart. */
TEST(a_deadline_seen_to_pass_is_not_live_however_coarse_the_time_is)
{
    uint64_t seed = 11;
    for (int i = 0; i < 1000; i++) {
        now += (lctx_ns)(check_random(&seed) % 1000);
        lctx *timed = lctx_with_timeout(lctx_background(), 1, NULL);
        lctx *fixed = lctx_with_deadline(lctx_background(), lctx_now() + 1, NULL);
        lctx *both[] = {timed, fixed};
        double times[2];
        CHECK(lctx_deadline(timed, &times[0]) && lctx_deadline(fixed, &times[1]));
        now += SECOND - 2000;
        for (int step = 0; step < 400; step++, now += 10)
            for (int j = 0; j < 2; j++)
                CHECK(lctx_now() < times[j] || lctx_err(both[j]) != LCTX_LIVE);
        unref_all(both, 2);
    }
}

/* ---- Many deadlines -------------------------------------------------------------------------------------- */

typedef struct timed {
    lctx *ctx;
    lctx_ns when;
    lctx_after *after;
    bool canceled, ended;
} timed;

static timed *order[200000];
static size_t ended_count;

static void note_end(lctx_after *after, void *arg)
{
    timed *t = arg;
    (void)after;
    t->ended = true;
    if (!t->canceled)
        order[ended_count++] = t;
}

static void make_timed(timed *t, lctx *parent, lctx_ns span)
{
    *t = (timed){.ctx = lctx_with_timeout(parent, (double)span / 1e9, NULL)};
    t->when = when_of(t->ctx);
    t->after = lctx_after_func(t->ctx, note_end, t);
}

static void free_timed(timed *t)
{
    lctx_after_free(t->after);
    lctx_unref(t->ctx);
}

TEST(deadlines_pass_in_their_order)
{
    enum { N = 5000 };
    static timed all[N];
    uint64_t seed = 5;
    ended_count = 0;
    for (int i = 0; i < N; i++) /* a few to each tick */
        make_timed(&all[i], lctx_background(), 1 + (lctx_ns)(check_random(&seed) % (TICK * 500)));
    pass(TICK * 501);
    CHECK(ended_count == N && stats_now().timers == 0);
    for (int i = 1; i < N; i++)
        CHECK(order[i - 1]->when <= order[i]->when);
    for (int i = 0; i < N; i++)
        free_timed(&all[i]);
}

TEST(equal_deadlines_pass_together)
{
    enum { N = 3000 };
    static timed all[N];
    ended_count = 0;
    for (int i = 0; i < N; i++)
        make_timed(&all[i], lctx_background(), 3600ll * SECOND);
    pass(3600ll * SECOND - 1);
    CHECK(ended_count == 0);
    pass(TICK);
    CHECK(ended_count == N);
    for (int i = 0; i < N; i++)
        free_timed(&all[i]);
}

/* All of them are due when the timers are run; a run takes them in batches. */
TEST(the_sooner_of_two_deadlines_wins_among_many_of_one_moment)
{
    enum { N = 400 };
    const lctx_any parents = of_string("parent"), childs = of_string("child");
    lctx *fill[N];
    now = (now / TICK + 10) * TICK;
    lctx *parent = lctx_with_timeout(lctx_background(), 2000e-9, &parents);
    for (int i = 0; i < N; i++)
        fill[i] = lctx_with_timeout(lctx_background(), 3000e-9, NULL);
    lctx *child = lctx_with_timeout(parent, 1000e-9, &childs);
    CHECK(stats_now().timers == N + 2);
    pass(TICK);
    CHECK(cause_is(parent, "parent") && cause_is(child, "child"));
    unref_all(fill, N);
    lctx_unref(child);
    lctx_unref(parent);
}

/* After each step exactly those have ended that are due, whatever was cancelled in between. */
static void check_against_model(timed *all, size_t n, uint64_t *seed, lctx_ns (*span)(uint64_t *))
{
    ended_count = 0;
    lctx_ns last = 0;
    for (size_t i = 0; i < n; i++) {
        make_timed(&all[i], lctx_background(), span(seed));
        last = all[i].when > last ? all[i].when : last;
    }
    CHECK(stats_now().timers == n);
    for (int step = 0; now < last + TICK; step++) {
        for (size_t i = 0; i < n / 200; i++) {
            timed *t = &all[check_random(seed) % n];
            t->canceled = t->canceled || !t->ended;
            lctx_cancel(t->ctx);
        }
        now += step < 40 ? 1 + span(seed) / 4 : last + TICK - now;
        lctx_ns next = lctx__timers_run();
        size_t left = 0;
        for (size_t i = 0; i < n; i++) {
            left += !all[i].ended;
            CHECK(all[i].canceled || all[i].ended == is_due(all[i].when));
            CHECK(all[i].ended || next <= (all[i].when + TICK - 1) / TICK * TICK);
        }
        CHECK(stats_now().timers == left && (left > 0) == (next != LCTX_NEVER));
    }
    for (size_t i = 1; i < ended_count; i++) /* in one tick there are more than a batch */
        CHECK((order[i - 1]->when + TICK - 1) / TICK <= (order[i]->when + TICK - 1) / TICK);
    for (size_t i = 0; i < n; i++)
        free_timed(&all[i]);
}

static lctx_ns span_up_to_an_hour(uint64_t *seed)
{
    return 1 + (lctx_ns)(check_random(seed) % (3600ull * SECOND));
}

/* From nanoseconds to years: every level of the wheel. */
static lctx_ns span_of_any_size(uint64_t *seed)
{
    return 1 + (lctx_ns)(check_random(seed) >> (10 + check_random(seed) % 50));
}

TEST(a_hundred_thousand_deadlines_pass_as_in_a_list)
{
    enum { N = SCALED(100000) };
    static timed all[N];
    uint64_t seed = 6;
    check_against_model(all, N, &seed, span_up_to_an_hour);
    check_against_model(all, N, &seed, span_of_any_size);
}

/* Around each border between two levels of the wheel, ended one by one. */
TEST(deadlines_at_the_borders_of_levels_pass_on_their_tick)
{
    enum { N = 8 * 3 * 5 };
    static timed all[N];
    lctx_ns start = now;
    for (int offset = 0; offset < 3; offset++) {
        int n = 0;
        now = start = (start / TICK + 7 * offset) * TICK + (offset == 2);
        for (int level = 0; level < 8; level++)
            for (int factor = 1; factor <= 3; factor++)
                for (int nudge = -2; nudge <= 2; nudge++) {
                    lctx_ns ticks = ((lctx_ns)factor << (6 * level)) + nudge;
                    make_timed(&all[n++], lctx_background(), (ticks > 0 ? ticks : 1) * TICK);
                }
        ended_count = 0;
        for (lctx_ns next; (next = lctx__timers_run()) != LCTX_NEVER;) {
            CHECK(next > now);
            now = next;
            lctx__timers_run();
            for (int i = 0; i < n; i++)
                CHECK(all[i].ended == is_due(all[i].when));
        }
        CHECK(ended_count == (size_t)n);
        for (int i = 0; i < n; i++)
            free_timed(&all[i]);
        start = now;
    }
}

TEST(a_disarmed_timer_leaves_the_wheel_at_every_level)
{
    uint64_t seed = 9;
    enum { N = 2000 };
    static lctx *all[N];
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < N; i++)
            all[i] = lctx_with_timeout(lctx_background(), (double)span_of_any_size(&seed) / 1e9 + 0.001, NULL);
        pass(span_of_any_size(&seed) >> 20);
        for (int i = 0; i < N; i++)
            if (i % 2)
                lctx_cancel(all[i]);
        unref_all(all, N);
        CHECK(stats_now().timers == 0 && lctx__timers_run() == LCTX_NEVER);
    }
}

static int chain_left;

static void make_next(lctx_after *after, void *arg)
{
    (void)after, (void)arg;
    if (chain_left-- == 0)
        return;
    lctx *ctx = lctx_with_timeout(lctx_background(), 1e-5, NULL);
    lctx_after_free(lctx_after_func(ctx, make_next, NULL));
    lctx_unref(ctx); /* the registration holds it */
}

TEST(a_callback_of_a_deadline_may_set_the_next_one)
{
    chain_left = 1000;
    make_next(NULL, NULL);
    for (int i = 0; i < 1001; i++)
        pass(2 * TICK);
    CHECK(chain_left == -1 && stats_now().timers == 0);
}

TEST(one_run_catches_up_with_a_long_sleep)
{
    enum { N = 3000 };
    static timed all[N];
    ended_count = 0;
    for (int i = 0; i < N; i++) /* all in one slot of a high level: moved down in steps */
        make_timed(&all[i], lctx_background(), 86400ll * SECOND + i * 7919ll);
    pass(365ll * 86400 * SECOND);
    CHECK(ended_count == N);
    for (int i = 1; i < N; i++)
        CHECK(order[i - 1]->when <= order[i]->when);
    for (int i = 0; i < N; i++)
        free_timed(&all[i]);
}

/* ---- Without a thread ------------------------------------------------------------------------------------ */

TEST(the_thread_is_wanted_once)
{
    lose_thread(false);
    threads_wanted = 0;
    for (int i = 0; i < 10; i++) {
        lctx *ctx = lctx_with_timeout(lctx_background(), 1, NULL);
        lctx_unref(ctx);
    }
    CHECK(threads_wanted == 1);
}

TEST(without_a_thread_deadlines_hold_for_whoever_asks)
{
    lose_thread(true);
    lctx *by_err = lctx_with_timeout(lctx_background(), 1, NULL), *below = lctx_with_cancel(by_err);
    lctx *by_cause = lctx_with_timeout(lctx_background(), 1, &(lctx_any){.type = LCTX_BOOLEAN});
    lctx *by_wait = lctx_with_timeout(lctx_background(), 1, NULL), *other = lctx_with_cancel(lctx_background());
    lctx *by_other = lctx_with_timeout(lctx_background(), 1, NULL);
    lctx_any cause;
    CHECK(lctx_err(by_err) == LCTX_LIVE && threads_wanted > 1);
    now += SECOND + TICK;
    CHECK(lctx_err(below) == LCTX_DEADLINE_EXCEEDED && lctx_err(by_err) == LCTX_DEADLINE_EXCEEDED);
    CHECK(lctx_cause(by_cause, &cause) && lctx_wait(by_wait, INFINITY));
    CHECK(!lctx_wait(other, 0) && stats_now().timers == 0); /* a wait looks after all of them */
    CHECK(lctx_err(by_other) == LCTX_DEADLINE_EXCEEDED);
    lctx *all[] = {below, by_err, by_cause, by_wait, other, by_other};
    unref_all(all, 6);
    lose_thread(false);
}

TEST(without_a_thread_a_deadline_above_a_custom_context_holds)
{
    lose_thread(true);
    lctx *source = lctx_with_timeout(lctx_background(), 1, NULL), *custom = lctx_custom(source, &no_methods, NULL);
    lctx *child = lctx_with_cancel(custom), *late = lctx_with_timeout(custom, 10, NULL);
    now += SECOND + TICK;
    CHECK(lctx_err(child) == LCTX_DEADLINE_EXCEEDED);
    CHECK(lctx_err(late) == LCTX_DEADLINE_EXCEEDED);
    CHECK(lctx_err(custom) == LCTX_DEADLINE_EXCEEDED);
    lctx *all[] = {late, child, custom, source};
    unref_all(all, 4);
    lose_thread(false);
}

TEST(when_threads_are_to_be_had_again_one_is_started)
{
    lose_thread(true);
    lctx *ctx = lctx_with_timeout(lctx_background(), 1, NULL);
    CHECK(atomic_load(&lctx__timers_unattended));
    CHECK(lctx__timers_attend(LCTX_NEVER) < LCTX_NEVER); /* look again when it is due */
    threads_forbidden = false;
    CHECK(lctx__timers_attend(LCTX_NEVER) == LCTX_NEVER);
    CHECK(!atomic_load(&lctx__timers_unattended));
    now += 2ll * SECOND;
    CHECK(lctx_err(ctx) == LCTX_LIVE);
    lctx__timers_run();
    CHECK(lctx_err(ctx) == LCTX_DEADLINE_EXCEEDED);
    lctx_unref(ctx);
}

int main(int argc, char **argv)
{
    static const check_case cases[] = {
        CASE(a_deadline_ends_its_context_in_time_and_not_before),
        CASE(a_deadline_as_a_point_in_time_ends_its_context_too),
        CASE(a_time_that_is_past_makes_a_context_born_ended),
        CASE(a_deadline_endlessly_long_ago_stays_past),
        CASE(a_deadline_too_far_to_tell_is_kept_all_the_same),
        CASE(infinity_is_no_deadline),
        CASE(a_cancel_before_the_deadline_wins_and_disarms_it),
        CASE(a_deadline_in_any_layer_ends_the_leaf_and_no_value),
        CASE(a_parent_whose_deadline_is_sooner_wins),
        CASE(of_equal_deadlines_the_parents_wins),
        CASE(without_cancel_has_no_deadline_but_what_is_below_may),
        CASE(a_merge_has_the_soonest_deadline_and_ends_with_it),
        CASE(the_deadline_that_a_custom_parent_tells_is_respected),
        CASE(what_remains_of_a_custom_deadline_is_never_negative),
        CASE(the_deadline_that_was_told_stays),
        CASE(a_jump_of_the_wall_clock_moves_no_deadline),
        CASE(remaining_follows_the_clock_and_ends_the_context_at_zero),
        CASE(err_looks_at_the_clock_once_the_time_was_asked_for),
        CASE(waiting_looks_at_the_clock),
        CASE(a_deadline_seen_to_pass_is_not_live_however_slowly_it_was_told),
        CASE(a_deadline_seen_to_pass_is_not_live_however_coarse_the_time_is),
        CASE(deadlines_pass_in_their_order),
        CASE(equal_deadlines_pass_together),
        CASE(the_sooner_of_two_deadlines_wins_among_many_of_one_moment),
        CASE(a_hundred_thousand_deadlines_pass_as_in_a_list),
        CASE(deadlines_at_the_borders_of_levels_pass_on_their_tick),
        CASE(a_disarmed_timer_leaves_the_wheel_at_every_level),
        CASE(a_callback_of_a_deadline_may_set_the_next_one),
        CASE(one_run_catches_up_with_a_long_sleep),
        CASE(the_thread_is_wanted_once),
        CASE(without_a_thread_deadlines_hold_for_whoever_asks),
        CASE(without_a_thread_a_deadline_above_a_custom_context_holds),
        CASE(when_threads_are_to_be_had_again_one_is_started),
    };
    lctx__clock = &test_clock;
    return CHECK_MAIN(cases);
}
