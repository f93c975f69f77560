/* SPDX-License-Identifier: MIT
 *
 * check.h - a test program: TESTs in a table, CHECKs in them, a watchdog, and a leak check after each test.
 * Arguments of the program, if any, are the names of the tests to run.
 */
#ifndef CHECK_H
#define CHECK_H

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../../csrc/core/lcontext.h"

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define CHECK_TSAN 1
#elif __has_feature(address_sanitizer)
#define CHECK_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) && !defined(CHECK_ASAN)
#define CHECK_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__) || defined(CHECK_TSAN)
#undef CHECK_TSAN
#define CHECK_TSAN 1
#define SCALED(n)  ((n) / 10) /* the thread sanitizer slows loops down by about that much */
#else
#define SCALED(n) (n)
#endif

#define TEST(name) static void name(void)
/* clang-format off */
#define CASE(name) {#name, name}
/* clang-format on */
#define CHECK(cond)       check_that((cond), __FILE__, __LINE__, #cond)
#define CHECK_MAIN(cases) check_main(cases, sizeof(cases) / sizeof *(cases), argc, argv)

typedef struct check_case {
    const char *name;
    void (*run)(void);
} check_case;

static const char *volatile check_running = "";
static atomic_int check_failures; /* of the running test */

/* Threads call this too. Says what cond was, so that a test can give up. */
static inline bool check_that(bool cond, const char *file, int line, const char *text)
{
    if (!cond && atomic_fetch_add(&check_failures, 1) < 10)
        fprintf(stderr, "%s:%d: %s: %s\n", file, line, check_running, text);
    return cond;
}

static inline void check_say(const char *text)
{
    if (write(STDERR_FILENO, text, strlen(text)) < 0)
        return;
}

static inline void check_hangs(int signal)
{
    (void)signal;
    check_say(check_running);
    check_say(": hangs\n");
    abort();
}

/* Another thread may be about to give back what it holds: there is no event to wait for. */
static inline bool check_nothing_left(void)
{
    lctx_stats stats = {0};
    for (int i = 0; i < 5000; i++) {
        lctx_get_stats(&stats);
        if (!(stats.contexts | stats.live | stats.timers | stats.callbacks | stats.waiters))
            return true;
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    fprintf(stderr, "%s: left: %zu contexts, %zu live, %zu timers, %zu callbacks, %zu waiters\n", check_running,
            stats.contexts, stats.live, stats.timers, stats.callbacks, stats.waiters);
    return false;
}

static inline bool check_run(const check_case *test)
{
    check_running = test->name;
    atomic_store(&check_failures, 0);
    alarm(120);
    test->run();
    bool clean = check_nothing_left();
    alarm(0);
    bool passed = clean && atomic_load(&check_failures) == 0;
    if (!passed)
        fprintf(stderr, "FAILED %s\n", test->name);
    return passed;
}

static inline bool check_chosen(const char *name, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(name, argv[i]) == 0)
            return true;
    return argc <= 1;
}

static inline int check_main(const check_case *cases, size_t n, int argc, char **argv)
{
    int passed = 0, failed = 0;
    signal(SIGALRM, check_hangs);
    for (size_t i = 0; i < n; i++)
        if (check_chosen(cases[i].name, argc, argv))
            *(check_run(&cases[i]) ? &passed : &failed) += 1;
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}

/* SplitMix64. */
static inline uint64_t check_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

#endif
