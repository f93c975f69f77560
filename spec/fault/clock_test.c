/* SPDX-License-Identifier: MIT
 *
 * Clocks that misbehave, and times that are none. As in timer_test.c the clock moves when a test says so, and there is
 * no timer thread: the tests call what it does.
 */
// link: -Wl,--wrap=pthread_create -lm
#include <errno.h>
#include <math.h>
#include <pthread.h>

#include "../../csrc/core/mailbox.h"
#include "../../csrc/core/timer.h"
#include "../core/values.h"

enum { TICK = 1 << 14, SECOND = 1000000000 };

static lctx_ns now = 1000 * (lctx_ns)SECOND;
static double wall = 1.7e9;

static lctx_ns test_monotonic(void)
{
    return now;
}

static double test_wall(void)
{
    return wall;
}

static const lctx_clock test_clock = {test_monotonic, test_wall};

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
    (void)attr, (void)run, (void)arg;
    *thread = pthread_self();
    return 0;
}

static void pass(double seconds)
{
    now += (lctx_ns)(seconds * 1e9);
    wall += seconds;
    lctx__timers_run();
}

/* ---- The wall clock steps -------------------------------------------------------------------------------- */

TEST(steps_of_the_wall_clock_move_no_deadline)
{
    enum { N = 2000 };
    static lctx *ctx[N];
    static double due[N]; /* on the monotonic clock */
    uint64_t seed = 1;
    for (int i = 0; i < N; i++) {
        double span = 1 + (double)(check_random(&seed) % 1000);
        ctx[i] = i % 2 ? lctx_with_timeout(lctx_background(), span, NULL)
                       : lctx_with_deadline(lctx_background(), lctx_now() + span, NULL);
        due[i] = lctx_monotonic() + span;
        wall += ((double)(check_random(&seed) % 2001) - 1000) * (i % 7 == 0 ? 1e6 : 1); /* both ways, far at times */
    }
    for (int step = 0; step < 1010; step++) {
        for (int i = 0; i < N; i++)
            CHECK((lctx_err(ctx[i]) != LCTX_LIVE) == (due[i] < lctx_monotonic()));
        wall += ((double)(check_random(&seed) % 2001) - 1000) * (step % 7 == 0 ? 1e6 : 1);
        pass(step ? 1 : 0.5); /* between the seconds, where it is clear what is due */
    }
    unref_all(ctx, N);
    wall = 1.7e9;
}

TEST(a_point_in_time_that_was_told_stays_however_the_wall_clock_steps)
{
    double first, again, of_point;
    lctx *timeout = lctx_with_timeout(lctx_background(), 100, NULL);
    lctx *point = lctx_with_deadline(lctx_background(), wall + 100, NULL), *child = lctx_with_timeout(point, 200, NULL);
    double told = wall + 100;
    CHECK(lctx_deadline(timeout, &first) && fabs(first - told) < 1e-5);
    for (int i = 0; i < 20; i++) {
        wall += i % 2 ? 1e6 * i : -1.1e6 * i;
        CHECK(lctx_deadline(timeout, &again) && again == first);
        CHECK(lctx_deadline(child, &of_point) && of_point == told);
        CHECK(fabs(lctx_remaining(timeout) - 100) < 1e-5 && fabs(lctx_remaining(child) - 100) < 1e-5);
    }
    pass(101);
    CHECK(lctx_err(timeout) == LCTX_DEADLINE_EXCEEDED && lctx_err(child) == LCTX_DEADLINE_EXCEEDED);
    lctx *all[] = {child, point, timeout};
    unref_all(all, 3);
    wall = 1.7e9;
}

TEST(a_step_back_before_the_epoch_is_survived)
{
    wall = -1e12;
    lctx *past = lctx_with_deadline(lctx_background(), -1e12 - 1, NULL);
    lctx *ctx = lctx_with_deadline(lctx_background(), -1e12 + 50, NULL);
    double time;
    CHECK(lctx_err(past) == LCTX_DEADLINE_EXCEEDED && lctx_err(ctx) == LCTX_LIVE);
    CHECK(lctx_deadline(ctx, &time) && time == -1e12 + 50);
    pass(51);
    CHECK(lctx_err(ctx) == LCTX_DEADLINE_EXCEEDED);
    lctx_unref(past);
    lctx_unref(ctx);
    wall = 1.7e9;
}

/* ---- Times that are none, and times far away ------------------------------------------------------------- */

static const double far_times[] = {9.2e9, 9.3e9,  1e10,   1e18,    1e19,     1e100, 1.7e308, -9.3e9,
                                   -1e19, -1e308, 5e-324, -5e-324, INFINITY, -0.0,  0,       -INFINITY};
enum { FAR_TIMES = sizeof far_times / sizeof *far_times };

static void check_span(double seconds)
{
    lctx *ctx = lctx_with_timeout(lctx_background(), seconds, NULL);
    double time;
    bool past = seconds <= 0;
    if (!CHECK(ctx != NULL))
        return;
    CHECK((lctx_err(ctx) == LCTX_DEADLINE_EXCEEDED) == past);
    CHECK(lctx_deadline(ctx, &time) == (seconds < INFINITY) && (past || lctx_remaining(ctx) > 0));
    CHECK(stats_now().timers == (seconds > 0 && seconds < INFINITY));
    lctx *child =
        lctx_with_deadline(ctx, lctx_now() + 1, NULL); /* a deadline of its own, unless that above is sooner */
    CHECK((lctx_err(child) == LCTX_DEADLINE_EXCEEDED) == past);
    lctx_unref(child);
    lctx_unref(ctx);
}

TEST(spans_of_any_size_are_taken)
{
    for (int i = 0; i < FAR_TIMES; i++)
        check_span(far_times[i]);
}

static void check_point(double seconds)
{
    lctx *ctx = lctx_with_deadline(lctx_background(), seconds, NULL);
    double time;
    if (!CHECK(ctx != NULL))
        return;
    CHECK((lctx_err(ctx) == LCTX_DEADLINE_EXCEEDED) == (seconds <= wall));
    CHECK(lctx_deadline(ctx, &time) == (seconds < INFINITY));
    if (seconds < INFINITY)
        CHECK(time == seconds);
    lctx_unref(ctx);
}

TEST(points_in_time_of_any_size_are_taken_and_told_as_they_were_given)
{
    for (int i = 0; i < FAR_TIMES; i++)
        check_point(far_times[i]);
}

TEST(far_deadlines_keep_their_order)
{
    lctx *outer = lctx_with_timeout(lctx_background(), 1e300, NULL), *middle = lctx_with_timeout(outer, 1e9, NULL);
    lctx *inner = lctx_with_timeout(middle, 1e8, NULL), *same = lctx_with_timeout(outer, 1e301, NULL);
    CHECK(stats_now().timers == 3); /* both the first and the last are too far to tell apart */
    pass(1e8 + 1);
    CHECK(lctx_err(inner) == LCTX_DEADLINE_EXCEEDED && lctx_err(middle) == LCTX_LIVE);
    pass(1e9);
    CHECK(lctx_err(middle) == LCTX_DEADLINE_EXCEEDED && lctx_err(outer) == LCTX_LIVE && lctx_err(same) == LCTX_LIVE);
    lctx *all[] = {same, inner, middle, outer};
    unref_all(all, 4);
}

TEST(nan_is_refused_and_does_not_wait)
{
    const lctx_any cause = of_string("why");
    errno = 0;
    CHECK(lctx_with_timeout(lctx_background(), NAN, &cause) == NULL && errno == EINVAL);
    errno = 0;
    CHECK(lctx_with_deadline(lctx_background(), -NAN, &cause) == NULL && errno == EINVAL);
    lctx *ctx = lctx_with_cancel(lctx_background());
    CHECK(!lctx_wait(ctx, NAN) && !lctx_wait(ctx, -INFINITY) && !lctx_wait(lctx_background(), NAN));
    lctx_cancel(ctx);
    CHECK(lctx_wait(ctx, NAN) && lctx_wait(ctx, INFINITY));
    lctx_unref(ctx);
}

static bool tell_nonsense(void *self, double *time)
{
    *time = *(double *)self;
    return true;
}

TEST(a_custom_deadline_that_is_no_time_does_no_harm)
{
    static const lctx_methods methods = {.deadline = tell_nonsense};
    double nonsense[] = {NAN, INFINITY, -INFINITY, 1e308};
    for (int i = 0; i < 4; i++) {
        lctx *custom = lctx_custom(NULL, &methods, &nonsense[i]), *merge = lctx_merge(1, &custom);
        lctx *child = lctx_with_timeout(custom, 1, NULL), *other = lctx_with_timeout(merge, 1, NULL);
        CHECK(custom && merge && child && other);
        CHECK(lctx_remaining(custom) >= 0 && lctx_err(custom) == LCTX_LIVE);
        pass(2);
        CHECK((lctx_err(child) == LCTX_DEADLINE_EXCEEDED) == (nonsense[i] != -INFINITY));
        lctx *all[] = {child, other, merge, custom};
        unref_all(all, 4);
    }
}

/* ---- A million ------------------------------------------------------------------------------------------- */

static void count_call(lctx_after *after, void *counter)
{
    (void)after;
    ++*(long *)counter;
}

TEST(a_million_deadlines_at_one_instant_pass_in_one_run)
{
    enum { MILLION = 1000000 };
    lctx **ctx = malloc(sizeof *ctx * MILLION);
    long calls = 0;
    for (int i = 0; i < MILLION; i++)
        ctx[i] = lctx_with_timeout(lctx_background(), 10, NULL);
    for (int i = 0; i < MILLION; i += 1000)
        lctx_after_free(lctx_after_func(ctx[i], count_call, &calls));
    CHECK(stats_now().timers == MILLION && stats_now().live == MILLION);
    now += 10ll * SECOND - TICK;
    lctx__timers_run();
    CHECK(stats_now().timers == MILLION && calls == 0);
    now += 2 * TICK;
    double start = (double)clock() / CLOCKS_PER_SEC;
    lctx__timers_run();
    printf("a million deadlines at one instant: %.0f ms of processor time\n",
           ((double)clock() / CLOCKS_PER_SEC - start) * 1e3);
    CHECK(stats_now().timers == 0 && stats_now().live == 0 && calls == MILLION / 1000);
    unref_all(ctx, MILLION);
    free(ctx);
}

int main(int argc, char **argv)
{
    static const check_case cases[] = {
        CASE(steps_of_the_wall_clock_move_no_deadline),
        CASE(a_point_in_time_that_was_told_stays_however_the_wall_clock_steps),
        CASE(a_step_back_before_the_epoch_is_survived),
        CASE(spans_of_any_size_are_taken),
        CASE(points_in_time_of_any_size_are_taken_and_told_as_they_were_given),
        CASE(far_deadlines_keep_their_order),
        CASE(nan_is_refused_and_does_not_wait),
        CASE(a_custom_deadline_that_is_no_time_does_no_harm),
        CASE(a_million_deadlines_at_one_instant_pass_in_one_run),
    };
    lctx__clock = &test_clock;
    return CHECK_MAIN(cases);
}
