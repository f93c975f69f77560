/* SPDX-License-Identifier: MIT */
#include "clock.h"

#include "public.h"

static lctx_ns real_monotonic(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (lctx_ns)now.tv_sec * 1000000000 + now.tv_nsec;
}

static double real_wall(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static const lctx_clock real = {real_monotonic, real_wall};
const lctx_clock *lctx__clock = &real;

lctx_ns lctx__ns(double seconds)
{
    double exact = seconds * 1e9;
    if (exact >= 9.2e18)
        return LCTX_NEVER;
    if (exact <= -9.2e18)
        return -LCTX_NEVER;
    if (exact != exact)
        return 0;
    lctx_ns ns = (lctx_ns)exact;
    return ns + ((double)ns < exact);
}

lctx_ns lctx__instant(double seconds)
{
    lctx_ns span = lctx__ns(seconds), now = lctx__monotonic();
    return span > LCTX_NEVER - now ? LCTX_NEVER : now + span;
}

void lctx__cond_init(pthread_cond_t *condition)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
#ifndef __APPLE__
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
#endif
    pthread_cond_init(condition, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

struct timespec lctx__timespec(lctx_ns ns)
{
    struct timespec time = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
    return time;
}

double lctx_now(void)
{
    return lctx__clock->wall();
}

double lctx_monotonic(void)
{
    return lctx__seconds(lctx__monotonic());
}
