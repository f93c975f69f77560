/* SPDX-License-Identifier: MIT
 *
 * clock.h - the two clocks, one type: nanoseconds in an int64_t, saturating.
 *
 * Everything that is measured runs on the monotonic clock; the wall clock only translates points in time.
 * Both are read through lctx__clock, so that a test can put its own clock there (before any context is made:
 * it is not guarded).
 */
#ifndef LCTX_CLOCK_H
#define LCTX_CLOCK_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

#pragma GCC visibility push(hidden)

typedef int64_t lctx_ns;
#define LCTX_NEVER INT64_MAX

typedef struct lctx_clock {
    lctx_ns (*monotonic)(void);
    double (*wall)(void); /* Unix seconds */
} lctx_clock;
extern const lctx_clock *lctx__clock;

static inline lctx_ns lctx__monotonic(void)
{
    return lctx__clock->monotonic();
}

/* Seconds to nanoseconds, rounded up (nothing ends early), saturating at both ends. NaN is 0. */
lctx_ns lctx__ns(double seconds);

/* The instant `seconds` from now; LCTX_NEVER for what is too far to tell. */
lctx_ns lctx__instant(double seconds);

static inline double lctx__seconds(lctx_ns ns)
{
    return (double)ns / 1e9;
}

/* Makes a condition whose timed waits run on the monotonic clock. */
void lctx__cond_init(pthread_cond_t *condition);

/* An instant (not negative) as what pthread_cond_timedwait and ppoll take. */
struct timespec lctx__timespec(lctx_ns ns);

#pragma GCC visibility pop
#endif
